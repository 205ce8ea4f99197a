"""Renders tables, headings and indented sentences for a terminal, with colour if supported. Pure.

Text is wrapped on a terminal; in a file or a pipe each fact is one line. Called by the commands
that inspect a cluster.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_UNLIMITED = 4096
# Columns that wrap on a narrow terminal.
_FOLDING = ("NAME", "OBJECT", "MODEL", "URL", "MESSAGE", "FOUND", "WHAT TO DO")
# The least that is legible of one that wraps.
_LEAST = 16
# Columns that go below their row where these do not fit, the first of them first.
_BELOW = (
    *("URL", "NODE", "REVISION", "MODEL", "RESTARTS", "AGE", "ROUTABLE"),
    *("WHY", "BASIS", "TASKS", "MODELS", "KV CACHE", "OTHERS", "WAITING"),
)
_GAP = "  "
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
    # As Text, since rich interprets [words in brackets] of a str as markup.
    cells = [[c if isinstance(c, Text) else Text(c) for c in row] for row in rows]
    return Padding(_Table(tuple(header), cells), (0, 0, 0, indent), expand=False)


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows in columns. What a narrow terminal has no room for is below its row, with its name."""

    header: tuple[str, ...]
    rows: Sequence[Sequence[Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        if self._width(self.header, folds=True) <= room:
            yield self._grid()
            return
        beside = list(self.header)
        for name in _BELOW:
            if name in beside and self._width(beside) > room:
                beside.remove(name)
        if self._width(beside) > room:
            yield self._grid()
            return
        yield from self._lines(beside, room)

    def _column(self, name: str) -> list[Text]:
        index = self.header.index(name)
        return [row[index] for row in self.rows]

    def _width(self, names: Sequence[str], *, folds: bool = False) -> int:
        """Return the characters of a line with these columns, of those that fold at their least."""
        widths = (max([len(name), *map(len, self._column(name))]) for name in names)
        pairs = zip(names, widths, strict=True)
        least = (min(w, _LEAST) if folds and name in _FOLDING else w for name, w in pairs)
        return sum(least) + len(_GAP) * (len(names) - 1)

    def _lines(self, beside: Sequence[str], room: int) -> Iterator[Text]:
        widths = [self._width([name]) for name in beside]
        header = (name.ljust(width) for name, width in zip(beside, widths, strict=True))
        yield Text(_GAP.join(header).rstrip(), style="bold")
        for row in self.rows:
            by_name = dict(zip(self.header, row, strict=True))
            line = Text()
            for name, width in zip(beside, widths, strict=True):
                cell = by_name[name]
                line += Text.assemble(cell, " " * (width - len(cell)), _GAP)
            line.rstrip()
            yield line
            below = [n for n in self.header if n not in beside and by_name[n].plain not in "-"]
            yield from _facts([f"{name} {by_name[name].plain}" for name in below], room)

    def _grid(self) -> Table:
        grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, len(_GAP), 0, 0))
        for name in self.header:
            grid.add_column(name, overflow="fold", no_wrap=name not in _FOLDING)
        for row in self.rows:
            grid.add_row(*row)
        return grid


def _facts(facts: Sequence[str], room: int) -> Iterator[Text]:
    """Yield indented lines, none of which breaks within a fact that fits."""
    line = ""
    for fact in facts:
        longer = f"{line}{_GAP}{fact}"
        if line and len(longer) > room:
            yield Text(line, style="dim")
            longer = f"{_GAP}{fact}"
        line = longer
    if line:
        yield Text(line, style="dim")


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Give a function that shows on stderr which check runs, in place on a terminal."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield lambda step: print(f"checking {step} ...", file=sys.stderr, flush=True)
        return
    with console.status("checking ...") as status:
        yield lambda step: status.update(Text(f"checking {step} ..."))


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
