"""The page of screens: blocks between marks, which are replaced; its other text is kept. Pure.

<!-- screen NAME COLUMNS -->
```text
what the terminal shows
```
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_BLOCK = re.compile(
    r"(<!-- screen (?P<name>[a-z-]+) (?P<columns>\d+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL
)


class Key(NamedTuple):
    """A screen of the page."""

    name: str
    columns: int


def keys(page: str) -> Iterator[Key]:
    """Yield the screens that a page shows, in its order."""
    return (Key(m["name"], int(m["columns"])) for m in _BLOCK.finditer(page))


def lines_of(page: str) -> Iterator[tuple[Key, list[str]]]:
    """Yield each screen of a page with its lines."""
    for match in _BLOCK.finditer(page):
        lines = match["text"].splitlines()
        yield Key(match["name"], int(match["columns"])), lines[1:-1]


def with_screens(page: str, screens: Mapping[Key, Sequence[str]]) -> str:
    """Return the page with these screens in their places; others stay as they are."""

    def block(match: re.Match[str]) -> str:
        lines = screens.get(Key(match["name"], int(match["columns"])))
        if lines is None:
            return match[0]
        return "\n".join([f"{match[1]}```text", *lines, "```", match[5]])

    return _BLOCK.sub(block, page)
