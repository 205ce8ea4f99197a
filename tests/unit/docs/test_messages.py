"""Each message that a guide quotes exists in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "docs/guides").glob("*.md"))
_MESSAGE = re.compile(r"(`+) ?(.+?) ?\1")
_GAP = "…"
# Shorter ones prove nothing.
_LEAST = 8


def messages() -> Iterator[str]:
    """The first cell in backticks of each row under a heading `message`."""
    column = None
    for line in "\n\n".join(page.read_text() for page in PAGES).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if not cells:
            column = None
        elif "message" in cells:
            column = cells.index("message")
        elif column is not None and (found := _MESSAGE.fullmatch(cells[column])):
            yield found[2]


def texts() -> str:
    """Every text of the code, with a gap for what is filled in."""
    found = []
    for file in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else _GAP for p in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{\w*\}", _GAP, node.value))
    return "\n".join(found)


TEXTS = texts()


@pytest.mark.parametrize("message", sorted(set(messages())))
def test_a_quoted_message_exists(message: str) -> None:
    parts = [part.strip() for part in message.split(_GAP)]
    parts = [part for part in parts if len(part) >= _LEAST] or [max(parts, key=len)]
    assert all(part in TEXTS for part in parts), f"the code has no such message: {message}"


def test_guides_quote_messages() -> None:
    assert len(set(messages())) > 40
