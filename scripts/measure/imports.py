"""The graph of imports: modules with one importer, and rings."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from scripts.measure.source import Module

Graph = Mapping[str, frozenset[str]]


def graph(modules: Sequence[Module]) -> dict[str, frozenset[str]]:
    """What each module imports of the tree, imports inside `if TYPE_CHECKING` and functions too.

    An import of a module is none of the packages around it.
    """
    names = {module.name for module in modules}
    return {module.name: frozenset(_imported(module, names)) - {module.name} for module in modules}


def _imported(module: Module, names: set[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in names:
                    yield inner
                elif base in names:
                    yield base


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    keep = len(parts) - node.level + module.is_package
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def importers(graph: Graph) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {name: set() for name in graph}
    for name, imported in graph.items():
        for other in imported:
            found[other].add(name)
    return {name: frozenset(by) for name, by in found.items()}


def with_one_importer(modules: Sequence[Module]) -> tuple[str, ...]:
    """Modules, without packages, that exactly one other module of the tree imports."""
    by = importers(graph(modules))
    return tuple(m.name for m in modules if not m.is_package and len(by[m.name]) == 1)


def rings(graph: Graph) -> list[tuple[str, ...]]:
    """Groups of two or more modules that reach each other (strongly connected), largest first."""
    reached = {name: _reached(graph, name) for name in graph}
    found = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in graph
        if name in reached[name]
    }
    return sorted(found, key=lambda ring: (-len(ring), ring))


def _reached(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def rings_by_package(graph: Graph) -> dict[str, list[tuple[str, ...]]]:
    """Rings by the package (below the tree's own) that all their modules share."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for ring in rings(graph):
        packages = {".".join(name.split(".")[:2]) for name in ring}
        key = packages.pop() if len(packages) == 1 else " + ".join(sorted(packages))
        found.setdefault(key, []).append(ring)
    return found
