"""Shows the state of `autoglm up`: a live table on a terminal, plain lines elsewhere.

Reads the runtime's members and never changes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autoglm.local.child import last_line
from autoglm.local.member import Member, views
from autoglm.local.planning import State
from autoglm.local.runtime import Runtime

_COLUMNS = ("NAME", "REPLICA", "PID", "GRPC", "HTTP", "METRICS", "STATE", "RESTARTS", "AGE")
# What a narrow terminal has no room for; `status` shows it.
_FIRST_TO_GO = ("METRICS", "HTTP", "PID", "RESTARTS", "AGE")
_GAP = 2
_STYLES = {
    State.READY: "green",
    State.STARTING: "yellow",
    State.JOINING: "yellow",
    State.STOPPING: "dim",
    State.RESTARTING: "yellow",
    State.FAILING: "red",
    State.EXITED: "red",
    State.FAILED: "red",
}
_REFRESH_SECONDS = 0.5
_SLOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One replica as text."""

    cells: tuple[str, ...]
    state: State
    last_failure: str


def rows(members: Sequence[Member], now: float) -> list[Row]:
    """Return the rows of the table, the gateway first."""
    return [
        Row(
            (
                each.model or each.name,
                str(each.replica),
                str(each.pid or "-"),
                *(text.rpartition(":")[2] for text in (each.grpc, each.http, each.metrics)),
                each.state.value,
                str(each.restarts),
                age(each.age_seconds),
            ),
            each.state,
            each.last_failure,
        )
        for each in views(members, now)
    ]


def age(seconds: float) -> str:
    """Return a duration in its two largest units: 42s, 7m10s, 3h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _drawn(found: Sequence[Row], width: int) -> Iterator[RenderableType]:
    """Yield the table with the columns that have room, and below it the last failures."""
    shown = list(_COLUMNS)
    for name in _FIRST_TO_GO:
        if sum(_widths(found, shown)) + _GAP * (len(shown) - 1) > width:
            shown.remove(name)
    table = Table(*shown, box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for row in found:
        cells = dict(zip(_COLUMNS, map(Text, row.cells), strict=True))
        cells["STATE"].stylize(_STYLES[row.state])
        table.add_row(*(cells[name] for name in shown))
    yield table
    for row in (row for row in found if row.last_failure):
        yield Text(f"{row.cells[0]}-{row.cells[1]}: {row.last_failure}", style="red")


def _widths(found: Sequence[Row], names: Sequence[str]) -> Iterator[int]:
    for name in names:
        index = _COLUMNS.index(name)
        yield max(len(name), *(len(row.cells[index]) for row in found), 0)


class Display:
    """Prints progress lines, and below them the table on a terminal."""

    def __init__(self, console: Console, *, is_live: bool) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None

    def report(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table; restore the terminal at the end in any case."""
        if self._live is None:
            yield
            return
        with self._live:
            yield

    async def follow(self, runtime: Runtime) -> None:
        """Show the runtime until cancelled."""
        show = self.report_slow_starts if self._live is None else self.refresh
        while True:
            await asyncio.sleep(_SLOW_SECONDS if self._live is None else _REFRESH_SECONDS)
            show(runtime)

    def refresh(self, runtime: Runtime) -> None:
        """Update the table."""
        if self._live is None:
            return
        found = rows(runtime.members, runtime.now())
        self._live.update(Group(*_drawn(found, self._console.width)), refresh=True)

    def report_slow_starts(self, runtime: Runtime) -> None:
        """Report replicas that have been starting for long, with what each logged last."""
        # Not of the gateway, which only waits for its first replica.
        for member in (m for m in runtime.members if m.is_routed):
            seconds = runtime.now() - member.replica.since
            if member.replica.state is State.STARTING and seconds >= _SLOW_SECONDS / 2:
                line = last_line(member.files.log)
                logged = f"last log line: {line}" if line else "nothing logged yet"
                self.report(f"{member.name}: starting for {age(seconds)}; {member.stage or logged}")
