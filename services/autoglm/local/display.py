"""Shows the state of `autoglm up`: a live table on a terminal, plain lines elsewhere.

Reads the runtime's members and never changes them. What a start does is after the row, or below it
where there is no room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from autoglm.local.child import last_line
from autoglm.local.member import Member, MemberView, views
from autoglm.local.planning import Addresses, State
from autoglm.local.rates import Rate, Rates, poll
from autoglm.local.runtime import Runtime

_COLUMNS = (
    *("NAME", "REPLICA", "PID", "GRPC", "HTTP", "METRICS"),
    *("REQ/S", "TOK/S", "RESTARTS", "AGE", "STATE"),
)
# What a narrow terminal has no room for; `ps` shows most of it.
_FIRST_TO_GO = ("METRICS", "HTTP", "PID", "RESTARTS", "AGE", "REQ/S", "TOK/S")
_GAP = "  "
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
_REFRESH_SECONDS, _POLL_SECONDS = 0.5, 2.0
_SLOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One replica as text."""

    cells: tuple[str, ...]
    state: State
    last_failure: str
    stage: str = ""


def rows(members: Sequence[Member], now: float, rates: Rates) -> list[Row]:
    """Return the rows of the table, the gateway first."""
    return [_row(each, rates.of(each.name)) for each in views(members, now)]


def _row(view: MemberView, rate: Rate) -> Row:
    cells = (
        view.model or view.name,
        str(view.replica),
        str(view.pid or "-"),
        *(text.rpartition(":")[2] for text in (view.grpc, view.http, view.metrics)),
        number(rate.requests),
        number(rate.tokens),
        str(view.restarts),
        age(view.age_seconds),
        view.state.value,
    )
    return Row(cells, view.state, view.last_failure, view.stage)


def number(rate: float | None) -> str:
    """Return a rate with a digit after the point below 10: 0, 0.4, 7.5, 1234."""
    if rate is None:
        return "-"
    return f"{rate:.1f}" if 0 < rate < 9.95 else f"{rate:.0f}"


def age(seconds: float) -> str:
    """Return a duration in its two largest units: 42s, 7m10s, 3h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _drawn(found: Sequence[Row], width: int) -> Iterator[Text]:
    """Yield the table with the columns that have room, and below it the last failures."""
    cells = zip(_COLUMNS, *(row.cells for row in found), strict=True)
    widths = {name: max(map(len, (name, *others))) for name, *others in cells}
    for name in _FIRST_TO_GO:
        if _total(widths) > width:
            del widths[name]
    stages = [len(row.stage) for row in found if row.stage]
    is_beside = bool(stages) and _total(widths) + len(_GAP) + max(stages) <= width
    between = _GAP if is_beside else f"\n{_GAP}"
    yield Text(_line(_COLUMNS, widths) + (_GAP + "STAGE" if is_beside else ""), style="bold")
    for row in found:
        line = Text(_line(row.cells, widths))
        line.stylize(_STYLES[row.state], len(line) - widths["STATE"])
        line.append(between + row.stage if row.stage else "", style="yellow")
        yield line
    for row in (row for row in found if row.last_failure):
        yield Text(f"{row.cells[0]}-{row.cells[1]}: {row.last_failure}", style="red")


def _total(widths: Mapping[str, int]) -> int:
    """Return the characters of a line with columns of these widths."""
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _line(cells: Sequence[str], widths: Mapping[str, int]) -> str:
    by_name = dict(zip(_COLUMNS, cells, strict=True))
    return _GAP.join(by_name[name].ljust(width) for name, width in widths.items())


def listening(addresses: Addresses, scheme: str, width: int) -> str:
    """Return where the gateway listens: one line, or one each where there is no room."""
    rest = f"{scheme}://{addresses.http}"
    parts = (f"REST {rest}/v1", f"gRPC {addresses.grpc}", f"{rest}/docs")
    line = _GAP.join(parts)
    return line if len(line) <= width else "\n".join(parts)


class Display:
    """Prints progress lines, and below them the table on a terminal."""

    def __init__(self, console: Console, *, is_live: bool) -> None:
        self._console = console
        self._rates = Rates()
        self.gateway: tuple[Addresses, str] | None = None
        """Addresses of the gateway and the scheme of its REST port, to show below the table."""
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
        width = self._console.width
        parts = list(_drawn(rows(runtime.members, runtime.now(), self._rates), width))
        if self.gateway is not None:
            parts.append(Text(listening(*self.gateway, width)))
        self._live.update(Group(*parts), refresh=True)

    async def measure(self, runtime: Runtime) -> None:
        """Read the rates that the table shows until cancelled."""
        if self._live is None:
            return
        async with aiohttp.ClientSession() as session:
            while True:
                await poll(self._rates, session, runtime.members, runtime.now())
                await asyncio.sleep(_POLL_SECONDS)

    def report_slow_starts(self, runtime: Runtime) -> None:
        """Report replicas that have been starting for long, with what each logged last."""
        # Not of the gateway, which only waits for its first replica.
        for member in (m for m in runtime.members if m.is_routed):
            seconds = runtime.now() - member.replica.since
            if member.replica.state is State.STARTING and seconds >= _SLOW_SECONDS / 2:
                line = last_line(member.files.log)
                logged = f"last log line: {line}" if line else "nothing logged yet"
                self.report(f"{member.name}: starting for {age(seconds)}; {member.stage or logged}")
