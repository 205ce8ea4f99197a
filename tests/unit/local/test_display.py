"""The table shows what runs, in a few columns."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from autoglm.local.child import Failure, Files
from autoglm.local.display import Display, Row, age, rows
from autoglm.local.member import Member
from autoglm.local.planning import Addresses, Process, Replica, State, Workload
from autoglm.local.runtime import Runtime

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

    ports = ("50051", "8080", "9090")
    assert rows([failed, gateway], now=142.0) == [
        Row(("gateway", "0", "7", *ports, "ready", "0", "42s"), State.READY, ""),
        Row(("m", "0", "-", *ports, "exited", "2", "42s"), State.EXITED, "no such model"),
    ]


async def test_a_terminal_gets_a_table_and_lines_above_it(tmp_path: Path) -> None:
    output = io.StringIO()
    display = Display(Console(file=output, force_terminal=True, width=120), is_live=True)
    runtime = Runtime(tmp_path, display.report)

    with display.shown():
        display.refresh(runtime)
        display.report("hello [bold]")

    assert "RESTARTS" in output.getvalue()
    assert "hello [bold]" in output.getvalue()


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
