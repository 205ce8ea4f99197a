"""Measures the length of functions."""

from __future__ import annotations

import ast
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
            yield Function(node.name, module, node.lineno, length_of(node))


def length_of(node: FunctionNode) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


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
