"""The table shows what runs, in a few columns."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from autoglm.local.child import Failure, Files
from autoglm.local.display import Display, Row, age, number, rows
from autoglm.local.member import Member
from autoglm.local.planning import Addresses, Process, Replica, State, Workload
from autoglm.local.rates import Rates
from autoglm.local.runtime import Runtime

_CONTROL = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")
FILES = Files(Path("log"), Path("termination"))


def member(name: str, state: State, *, is_routed: bool = True) -> Member:
    workload = Workload(name, 1, Process(("x",), is_routed=is_routed))
    return Member(Replica(name, 0, "r", state, since=100.0), workload, Addresses(), FILES, pid=7)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0s"), (59, "59s"), (61, "1m01s"), (11_100, "3h05m")]
)
def test_ages_read_well(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_rows_show_the_gateway_first_and_the_last_failure() -> None:
    failed = member("m", State.EXITED)
    failed.last_failure, failed.starts, failed.pid = Failure("no such model", 66), 3, None
    gateway = member("_gateway", State.READY, is_routed=False)

    rates = Rates()
    for now, count in ((140.0, 7), (142.0, 8)):
        rates.note("gateway", 7, f"autoglm_gateway_requests_total {count}\n", now)
    ports = ("50051", "8080", "9090")
    assert rows([failed, gateway], 142.0, rates) == [
        Row(("gateway", "0", "7", *ports, "0.5", "-", "0", "42s", "ready"), State.READY, ""),
        Row(("m", "0", "-", *ports, "-", "-", "2", "42s", "exited"), State.EXITED, "no such model"),
    ]


@pytest.mark.parametrize(
    ("rate", "text"), [(None, "-"), (0.0, "0"), (0.04, "0.0"), (9.94, "9.9"), (1234.5, "1234")]
)
def test_rates_are_short(rate: float | None, text: str) -> None:
    assert number(rate) == text


async def test_a_terminal_gets_a_table_and_lines_above_it(tmp_path: Path) -> None:
    output = io.StringIO()
    display = Display(Console(file=output, force_terminal=True, width=120), is_live=True)
    runtime = Runtime(tmp_path, display.report)

    with display.shown():
        display.refresh(runtime)
        display.report("hello [bold]")

    assert "RESTARTS" in output.getvalue()
    assert "hello [bold]" in output.getvalue()


def shown(width: int, *members: Member, gateway: tuple[Addresses, str] | None = None) -> list[str]:
    """Return the lines of the frame that a terminal of a width gets."""
    runtime: Any = SimpleNamespace(members=members, now=lambda: 170.0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, color_system=None)
    display = Display(console, is_live=True)
    display.gateway = gateway
    with display.shown():
        display.refresh(runtime)
        lines = _CONTROL.sub("", output.getvalue()).splitlines()
    return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (160, [r"NAME .* STATE     STAGE", r"m .* starting  download 3\.1 of .*", r"n .* ready"]),
        (80, [r"NAME .* STATE", r"m .* starting", r"  download 3\.1 of .*", r"n .* ready"]),
    ],
)
def test_what_a_start_does_is_after_its_row_or_below_where_there_is_no_room(
    width: int, lines: list[str]
) -> None:
    starting, ready = member("m", State.STARTING), member("n", State.READY)
    starting.stage = "download 3.1 of 16.4 GB at 45.0 MB/s, of which some are in the cache"
    for line, pattern in zip(shown(width, starting, ready), lines, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize(("width", "count"), [(80, 1), (60, 3)])
def test_below_the_table_is_where_the_gateway_listens(width: int, count: int) -> None:
    _, *below = shown(width, gateway=(Addresses(), "http"))
    assert len(below) == count
    assert "  ".join(below) == (
        "REST http://127.0.0.1:8080/v1  gRPC 127.0.0.1:50051  http://127.0.0.1:8080/docs"
    )


@pytest.mark.parametrize("width", [48, 60, 80, 120])
async def test_a_narrow_terminal_leaves_out_columns_and_cuts_nothing(
    tmp_path: Path, width: int
) -> None:
    failed = member("a-model-of-some-name", State.FAILED)
    failed.last_failure = Failure("no such model", 66)
    runtime: Any = SimpleNamespace(members=(failed,), now=lambda: 170.0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, color_system=None)
    display = Display(console, is_live=True)

    with display.shown():
        display.refresh(runtime)

    for text in ("a-model-of-some-name", "failed", "50051"):
        assert text in output.getvalue()
    assert "a-model-of-some-name-0: no such model" in output.getvalue().replace("\n", " ")
    assert "…" not in output.getvalue()
    assert ("METRICS" in output.getvalue()) == (width == 120)


@pytest.mark.parametrize(
    ("log", "logged"),
    [("", "nothing logged yet"), ("loading\nweights read\n", "last log line: weights read")],
)
def test_a_slow_start_is_reported_with_what_the_replica_logged_last(
    tmp_path: Path, log: str, logged: str
) -> None:
    slow, gateway = (member(name, State.STARTING, is_routed=name == "m") for name in "mg")
    slow.files = Files(tmp_path / "log", tmp_path / "termination")
    slow.files.log.write_text(log)
    output = io.StringIO()
    runtime: Any = SimpleNamespace(members=(slow, gateway), now=lambda: 170.0)

    Display(Console(file=output, width=120), is_live=False).report_slow_starts(runtime)

    assert output.getvalue() == f"m-0: starting for 1m10s; {logged}\n"
