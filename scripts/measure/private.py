"""Counts private functions, and how those that are referenced once are referenced."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median

from scripts.measure.functions import FunctionNode, length_of
from scripts.measure.source import Module

SHORT = 6


class Use(Enum):
    """How a name is referenced."""

    VALUE = "value"
    CALL = "call"
    AWAITED_CALL = "awaited call"


Uses = Mapping[str, Sequence[Use]]


@dataclass(frozen=True, slots=True)
class Private:
    """Private functions, and those of them that their module refers to exactly once."""

    count: int
    direct: tuple[int, ...]
    """Lengths in lines of those whose one reference is a call: helpers with one caller."""
    as_values: int
    """Those whose one reference is a value: callbacks, entries of tables, decorators, hooks."""

    @property
    def called_once(self) -> int:
        return len(self.direct) + self.as_values

    @property
    def direct_median(self) -> int:
        return round(median(self.direct or (0,)))

    @property
    def direct_short(self) -> int:
        return sum(length <= SHORT for length in self.direct)

    def share(self, part: int) -> float:
        return part / max(1, self.count)


def private_functions(modules: Sequence[Module]) -> Private:
    """A function is private if its name starts with `_`, or if it stands on a module's top level
    and no other module of the tree mentions its name. Double underscores (`__init__`) are not.
    """
    uses = {module.name: _uses(module) for module in modules}
    mentions = Counter(name for own in uses.values() for name in own)
    count, direct, as_values = 0, list[int](), 0
    for module in modules:
        own = uses[module.name]
        defined = list(_defined(module.tree))
        definitions = Counter(node.name for node, _ in defined)
        for node, is_top in defined:
            elsewhere = mentions[node.name] - (node.name in own)
            if not _is_private(node.name, is_top and not node.decorator_list, elsewhere, own):
                continue
            count += 1
            if len(own.get(node.name, ())) == 1:
                if _is_direct(node, own[node.name][0], definitions[node.name]):
                    direct.append(length_of(node))
                else:
                    as_values += 1
    return Private(count, tuple(direct), as_values)


def _is_private(name: str, is_plain_top: bool, elsewhere: int, own: Uses) -> bool:
    if name.startswith("__"):
        return False
    return name.startswith("_") or (is_plain_top and not elsewhere and name in own)


def _is_direct(node: FunctionNode, use: Use, definitions: int) -> bool:
    """Whether the one use is a plain call of this very function.

    A coroutine that is not awaited where it is made is the target of a task. A name that its module
    defines several times, or an abstract one, is a hook.
    """
    if definitions > 1 or any("abstract" in ast.unparse(d) for d in node.decorator_list):
        return False
    if isinstance(node, ast.AsyncFunctionDef) and not _is_generator(node):
        return use is Use.AWAITED_CALL
    return use is not Use.VALUE


def _is_generator(node: FunctionNode) -> bool:
    ahead: list[ast.AST] = list(node.body)
    while ahead:
        one = ahead.pop()
        if isinstance(one, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(one, FunctionNode | ast.Lambda):
            ahead.extend(ast.iter_child_nodes(one))
    return False


def _defined(tree: ast.Module) -> Iterator[tuple[FunctionNode, bool]]:
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            yield node, id(node) in top


def _uses(module: Module) -> Uses:
    """Where each name is read: as a name, an attribute or an import."""
    calls = _called(module.tree)
    found: dict[str, list[Use]] = {}
    for node in ast.walk(module.tree):
        match node:
            case ast.Name(name, ast.Load()) | ast.Attribute(_, name, ast.Load()):
                found.setdefault(name, []).append(calls.get(id(node), Use.VALUE))
            case ast.ImportFrom(names=names):
                for alias in names:
                    found.setdefault(alias.name, []).append(Use.VALUE)
    return found


def _called(tree: ast.Module) -> dict[int, Use]:
    """By the id of its node, each expression that is called, except in decorators."""
    nodes = list(ast.walk(tree))
    awaited = {id(node.value) for node in nodes if isinstance(node, ast.Await)}
    decorators = {id(d) for node in nodes for d in getattr(node, "decorator_list", ())}
    return {
        id(node.func): Use.AWAITED_CALL if id(node) in awaited else Use.CALL
        for node in nodes
        if isinstance(node, ast.Call) and id(node) not in decorators
    }
