"""Counts files, lines and the modules of a folder."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scripts.measure.source import Module

LONG_FILE = 400
FULL_FOLDER = 15
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


@dataclass(frozen=True, slots=True)
class Size:
    files: int
    lines: int
    code_lines: int
    header_lines: int

    @property
    def header_share(self) -> float:
        return self.header_lines / max(1, self.lines)


def size(modules: Sequence[Module]) -> Size:
    return Size(
        len(modules),
        sum(module.line_count for module in modules),
        sum(len(code_lines(module)) for module in modules),
        sum(header_lines(module) for module in modules),
    )


def code_lines(module: Module) -> set[int]:
    """Numbers of the lines with code: no docstring, comment or blank line."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type not in _NO_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in docstrings(module.tree):
        found.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Docstrings of modules, classes, functions and attributes: any string that is a statement."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(ast.Constant(str()) as constant):
                yield constant


def header_lines(module: Module) -> int:
    """Lines before the first statement that is neither a docstring nor an import."""
    for statement in module.tree.body:
        if not _is_header(statement):
            decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
            return min([statement.lineno, *(node.lineno for node in decorators)]) - 1
    return module.line_count


def _is_header(statement: ast.stmt) -> bool:
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant()):
            return True
        case ast.If(ast.Name("TYPE_CHECKING")):
            return True
    return False


def long_files(modules: Sequence[Module], limit: int = LONG_FILE) -> dict[str, int]:
    return {str(m.path): m.line_count for m in modules if m.line_count > limit}


def full_folders(modules: Sequence[Module], limit: int = FULL_FOLDER) -> dict[str, int]:
    """Folders with more modules than that on one level, without `__init__` and generated ones."""
    counts = Counter(module.folder for module in modules if not module.is_package)
    return {folder: count for folder, count in sorted(counts.items()) if count > limit}


def repeated_classes(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Names of classes that stand in two or more files, and these files."""
    found: dict[str, set[str]] = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).add(str(module.path))
    return {name: sorted(files) for name, files in sorted(found.items()) if len(files) > 1}
