"""Reads a tree of Python modules."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Module:
    """One Python file. `path` is relative to the tree's package, `name` is dotted."""

    path: PurePosixPath
    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        parent = str(self.path.parent)
        return "(top)" if parent == "." else parent

    @property
    def line_count(self) -> int:
        return len(self.text.splitlines())


def is_generated(path: PurePosixPath) -> bool:
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def read_package(directory: Path) -> tuple[Module, ...]:
    """The modules of the package in `directory`, without generated ones, sorted by path."""
    paths = sorted(
        PurePosixPath(file.relative_to(directory).as_posix()) for file in directory.rglob("*.py")
    )
    return tuple(
        Module(path, module_name(directory.name, path), (directory / path).read_text("utf-8"))
        for path in paths
        if not is_generated(path)
    )


def module_name(package: str, path: PurePosixPath) -> str:
    parts = [package, *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
