"""Shows the state of `autoglm up`: a live table on a terminal, plain lines elsewhere.

Reads the runtime's members and never changes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autoglm.local.child import last_line
from autoglm.local.member import Member
from autoglm.local.planning import State
from autoglm.local.runtime import Runtime

_COLUMNS = ("NAME", "REPLICA", "PID", "GRPC", "HTTP", "METRICS", "STATE", "RESTARTS", "AGE")
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
                m.replica.workload if m.is_routed else m.name,
                str(m.replica.index),
                str(m.pid or "-"),
                *(
                    address.rpartition(":")[2]
                    for address in (m.addresses.grpc, m.addresses.http, m.addresses.metrics)
                ),
                m.replica.state.value,
                str(m.starts - 1),
                age(now - m.replica.since),
            ),
            m.replica.state,
            m.last_failure.message if m.last_failure else "",
        )
        for m in sorted(members, key=lambda m: m.replica.id)
    ]


def age(seconds: float) -> str:
    """Return a duration in its two largest units: 42s, 7m10s, 3h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


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
        table = Table(*_COLUMNS, "LAST FAILURE", box=None, header_style="bold", pad_edge=False)
        for row in rows(runtime.members, runtime.now()):
            cells = [Text(cell) for cell in row.cells]
            cells[_COLUMNS.index("STATE")].stylize(_STYLES[row.state])
            table.add_row(*cells, Text(row.last_failure, style="red"))
        self._live.update(table, refresh=True)

    def report_slow_starts(self, runtime: Runtime) -> None:
        """Report replicas that have been starting for long, with what each logged last."""
        # Not of the gateway, which only waits for its first replica.
        for member in (m for m in runtime.members if m.is_routed):
            seconds = runtime.now() - member.replica.since
            if member.replica.state is State.STARTING and seconds >= _SLOW_SECONDS / 2:
                line = last_line(member.files.log)
                logged = f"last log line: {line}" if line else "nothing logged yet"
                self.report(f"{member.name}: starting for {age(seconds)}; {member.stage or logged}")
