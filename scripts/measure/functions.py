"""Measures functions: their length, and how often private ones are called."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from scripts.measure.source import Module

STORY = 60
LIMIT = 110
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    module: Module
    line: int
    length: int

    @property
    def place(self) -> str:
        return f"{self.module.path}:{self.line} {self.name}"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of functions in lines, `def` to the last one, decorators left out."""

    count: int = 0
    median: int = 0
    p90: int = 0
    max: int = 0
    over_60: tuple[str, ...] = field(default=())
    over_110: tuple[str, ...] = field(default=())


def functions(module: Module) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    for node in ast.walk(module.tree):
        if isinstance(node, FunctionNode):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(node.name, module, node.lineno, length)


def lengths(modules: Sequence[Module]) -> Lengths:
    found = [function for module in modules for function in functions(module)]
    if not found:
        return Lengths()
    sizes = sorted(function.length for function in found)
    return Lengths(
        len(sizes),
        round(median(sizes)),
        sizes[min(len(sizes) - 1, int(len(sizes) * 0.9))],
        sizes[-1],
        tuple(f.place for f in found if f.length > STORY),
        tuple(f.place for f in found if f.length > LIMIT),
    )


def lengths_by_folder(modules: Sequence[Module]) -> dict[str, Lengths]:
    folders = sorted({module.folder for module in modules})
    return {folder: lengths([m for m in modules if m.folder == folder]) for folder in folders}


@dataclass(frozen=True, slots=True)
class Private:
    """Private functions, and those of them that their module refers to exactly once."""

    count: int
    called_once: int

    @property
    def share(self) -> float:
        return self.called_once / max(1, self.count)


def private_functions(modules: Sequence[Module]) -> Private:
    """A function is private if its name starts with `_`, or if it stands on a module's top level
    and no other module of the tree mentions its name. Double underscores (`__init__`) are not.
    """
    references = {module.name: _references(module) for module in modules}
    mentions: Counter[str] = Counter()
    for counter in references.values():
        mentions.update(counter.keys())
    count = once = 0
    for module in modules:
        own = references[module.name]
        for node, is_top in _defined(module.tree):
            elsewhere = mentions[node.name] - (node.name in own)
            if _is_private(node.name, is_top and not node.decorator_list, elsewhere, own):
                count += 1
                once += own[node.name] == 1
    return Private(count, once)


def _is_private(name: str, is_plain_top: bool, elsewhere: int, own: Counter[str]) -> bool:
    if name.startswith("__"):
        return False
    return name.startswith("_") or (is_plain_top and not elsewhere and name in own)


def _defined(tree: ast.Module) -> Iterator[tuple[FunctionNode, bool]]:
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            yield node, id(node) in top


def _references(module: Module) -> Counter[str]:
    """How often each name is read, as a name, an attribute or an import."""
    found: Counter[str] = Counter()
    for node in ast.walk(module.tree):
        match node:
            case ast.Name(name, ast.Load()) | ast.Attribute(_, name, ast.Load()):
                found[name] += 1
            case ast.ImportFrom(names=names):
                found.update(alias.name for alias in names)
    return found
