"""docs/architecture.md names each step as `FILE:FUNCTION`, relative to services/autoglm."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "services/autoglm"
TEXT = (ROOT / "docs/architecture.md").read_text()
STEPS = re.findall(r"`([a-z0-9_/]+\.py):([A-Za-z_.]+)`", TEXT)
FILES = re.findall(r"`([a-z0-9_]+(?:/[a-z0-9_]+)*/(?:[a-z0-9_]+\.py)?)`", TEXT)


def names(tree: ast.AST, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found |= {prefix + node.name} | names(node, f"{prefix}{node.name}.")
    return found


def test_requests_and_resources_are_followed_step_by_step() -> None:
    assert len(STEPS) > 25


@pytest.mark.parametrize(("file", "function"), STEPS)
def test_each_step_exists(file: str, function: str) -> None:
    assert function in names(ast.parse((PACKAGE / file).read_text()))


@pytest.mark.parametrize("path", FILES)
def test_each_file_and_folder_exists(path: str) -> None:
    assert (PACKAGE / path).exists() or (ROOT / path).exists()
