"""Extracts what people read from a file: docstrings, comments, messages, defined names, text."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from scripts.measure.size import docstrings

Kind = Literal["docstring", "comment", "string", "name", "text"]


@dataclass(frozen=True, slots=True)
class Prose:
    """A piece of text, and the lines of its file that it stands in."""

    kind: Kind
    text: str
    line: int
    last_line: int


def of_text(text: str) -> Iterator[Prose]:
    """A whole file that is not Python: every line may be read."""
    yield Prose("text", text, 1, text.count("\n") + 1)


def of_python(text: str) -> Iterator[Prose]:
    """Docstrings, comments, strings with a space in them (messages), and names that are defined.

    Strings of one word are keys, flags and the like, which other rules hold for.
    """
    tree = ast.parse(text)
    documented = {id(node): node for node in docstrings(tree)}
    for node in documented.values():
        yield _constant("docstring", node)
    yield from _comments(text)
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Constant) and id(inner) not in documented:
            if isinstance(inner.value, str) and re.search(r"\S\s+\S", inner.value):
                yield _constant("string", inner)
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Prose("name", words_of(inner.name), inner.lineno, inner.lineno)


def _constant(kind: Kind, node: ast.Constant) -> Prose:
    return Prose(kind, str(node.value), node.lineno, node.end_lineno or node.lineno)


def _comments(text: str) -> Iterator[Prose]:
    """Comments; those on lines of their own that follow each other are one piece."""
    block: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        is_own = not token.line[: token.start[1]].strip()
        if block and (not is_own or line != first + len(block)):
            yield Prose("comment", "\n".join(block), first, first + len(block) - 1)
            block = []
        if not block:
            first = line
        block.append(token.string.lstrip("#: "))
        if not is_own:
            yield Prose("comment", block.pop(), line, line)
    if block:
        yield Prose("comment", "\n".join(block), first, first + len(block) - 1)


def words_of(name: str) -> str:
    """`test_it_answers` and `TakeOver` as words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").strip()
