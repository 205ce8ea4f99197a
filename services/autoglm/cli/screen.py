"""Renders tables, headings and indented sentences for a terminal, with colour if supported. Pure.

Text is wrapped on a terminal; in a file or a pipe each fact is one line. Called by the commands
that inspect a cluster.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_UNLIMITED = 4096
# Columns that wrap on a narrow terminal.
_FOLDING = ("NAME", "OBJECT", "MODEL", "URL", "MESSAGE", "FOUND", "WHAT TO DO")
STYLES = {"ok": "green", "warn": "yellow", "unknown": "yellow", "failed": "red", "fail": "red"}
Cell = str | Text


@dataclass(frozen=True, slots=True)
class Canvas:
    """Width and colour of the output."""

    width: int = _UNLIMITED
    has_color: bool = False


def canvas_of_terminal() -> Canvas:
    if not sys.stdout.isatty():
        return Canvas()
    console = Console()
    return Canvas(console.width, not console.no_color)


def drawn(parts: Iterable[RenderableType], canvas: Canvas) -> str:
    """Render the parts as text without trailing spaces."""
    page = io.StringIO()
    color = "standard" if canvas.has_color else None
    console = Console(
        file=page,
        width=canvas.width,
        highlight=False,
        force_terminal=canvas.has_color,
        color_system=color,  # type: ignore[arg-type]  # a literal in fact
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in page.getvalue().splitlines())


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], indent: int = 0) -> RenderableType:
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in header:
        grid.add_column(name, overflow="fold", no_wrap=name not in _FOLDING)
    for row in rows:
        # As Text, since rich interprets [words in brackets] of a str as markup.
        grid.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return Padding(grid, (0, 0, 0, indent), expand=False)


def heading(text: str, style: str = "") -> Text:
    return Text(text, style=f"bold {style}".strip())


def sentence(text: str, indent: int = 2, style: str = "") -> RenderableType:
    return Padding(Text(text, style=style), (0, 0, 0, indent), expand=False)


def age(seconds: float | None) -> str:
    """Return a duration in its two largest units: 42s, 7m10s, 3h05m, 12d4h."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"
