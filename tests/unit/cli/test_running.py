"""`ps`, `logs`, `restart` and `down` over a run directory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoglm.local.control import served


def replica(name: str, log: Path, **changes: Any) -> dict[str, Any]:
    base = {
        "name": name,
        "model": name.rpartition("-")[0],
        "replica": 0,
        "pid": 7,
        "grpc": "127.0.0.1:1",
        "http": "127.0.0.1:2",
        "metrics": "127.0.0.1:3",
        "state": "ready",
        "stage": "",
        "restarts": 0,
        "age_seconds": 61.0,
        "log": str(log),
        "last_failure": "",
        "exit_code": None,
    }
    return base | changes


class Standin:
    """A run of a gateway and two replicas, of which the second does not start again."""

    def __init__(self, run_dir: Path, loop: asyncio.AbstractEventLoop) -> None:
        names = ("gateway", "m-0", "m-1")
        self.replicas = [replica(name, run_dir / f"{name}.log") for name in names]
        self.ended = asyncio.Event()
        self.stops = 0
        self._loop = loop

    def end(self) -> None:
        """End as a run does, from another thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.ended.set)

    def state(self) -> dict[str, Any]:
        return {"ready": True, "replicas": self.replicas}

    async def restart(self, name: str) -> dict[str, Any] | None:
        found = next(each for each in self.replicas if each["name"] == name)
        if name == "m-1":
            found |= {"state": "failed", "last_failure": "no such model", "exit_code": 66}
        return found

    def stop(self) -> None:
        """Drain the gateway only; end at the second time."""
        self.stops += 1
        self.replicas = self.replicas[1:]
        if self.stops == 2:
            self.ended.set()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for name in ("gateway", "m-0", "m-1"):
        (tmp_path / f"{name}.log").write_text(f"first of {name}\nlast of {name}\n")
    return tmp_path


@pytest.fixture
def run(run_dir: Path) -> Iterator[Standin]:
    """The run, served by a thread of its own, as commands block."""
    made: list[Standin] = []
    is_served = threading.Event()

    async def serve() -> None:
        standin = Standin(run_dir, asyncio.get_running_loop())
        made.append(standin)
        async with served(run_dir, standin):
            is_served.set()
            await standin.ended.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    is_served.wait()
    yield made[0]
    made[0].end()
    thread.join()
    loop.close()


def test_ps_lists_processes_with_what_they_do(autoglm: Any, run: Standin, run_dir: Path) -> None:
    run.replicas[1] |= {"state": "starting", "stage": "download 3.1 of 16.4 GB at 45.0 MB/s"}
    result = autoglm("ps", "--run-dir", str(run_dir))
    lines = [line.split() for line in result.out.splitlines()]
    assert result.code == 0
    assert lines[1][:2] == ["gateway", "ready"]
    assert lines[2][:2] == ["m-0", "starting"]
    assert "download 3.1 of 16.4 GB at 45.0 MB/s" in result.out


def test_ps_has_json_for_scripts(autoglm: Any, run: Standin, run_dir: Path) -> None:
    result = autoglm("ps", "--run-dir", str(run_dir), "--output", "json")
    assert [each["name"] for each in json.loads(result.out)["replicas"]] == [
        "gateway",
        "m-0",
        "m-1",
    ]


def test_without_a_run_ps_is_empty_down_has_nothing_to_do_and_restart_fails(
    autoglm: Any, run_dir: Path
) -> None:
    at = ("--run-dir", str(run_dir))
    assert json.loads(autoglm("ps", *at, "--output", "json").out) == {"replicas": []}
    down, restart = autoglm("down", *at), autoglm("restart", *at)
    assert (down.code, restart.code) == (0, 1)
    assert f"no `autoglm up` runs in {run_dir}; start one by" in down.err
    assert "no `autoglm up` runs in" in restart.err


def test_logs_of_all_have_the_name_before_each_line(autoglm: Any, run_dir: Path) -> None:
    result = autoglm("logs", "--run-dir", str(run_dir), "--tail", "1")
    assert result.out.splitlines() == [
        "gateway | last of gateway",
        "m-0     | last of m-0",
        "m-1     | last of m-1",
    ]


def test_logs_take_models_and_processes(autoglm: Any, run: Standin, run_dir: Path) -> None:
    at = ("--run-dir", str(run_dir), "--no-log-prefix")
    assert autoglm("logs", "m", *at, "-n", "1").out == "last of m-0\nlast of m-1\n"
    assert autoglm("logs", "m-1", *at).out == "first of m-1\nlast of m-1\n"


def test_a_name_that_is_not_there_lists_those_that_are(
    autoglm: Any, run: Standin, run_dir: Path
) -> None:
    for command in ("logs", "restart"):
        result = autoglm(command, "n", "--run-dir", str(run_dir))
        assert result.code == 2
        shown = " ".join(result.err.split())
        assert "there is no process or model n; there are: gateway, m-0, m-1" in shown


def test_followed_logs_continue_with_the_file_that_replaces_one_and_end_with_the_run(
    autoglm: Any, run: Standin, run_dir: Path
) -> None:
    def change() -> None:
        (run_dir / "m-0.log").unlink()
        (run_dir / "m-0.log").write_text("of the next start\n")
        run.end()

    timer = threading.Timer(0.5, change)
    timer.start()
    out = autoglm("logs", "-f", "m-0", "--no-log-prefix", "--run-dir", str(run_dir)).out
    timer.join()
    assert out.endswith("of the next start\n")


def test_restart_has_the_exit_code_of_what_fails(autoglm: Any, run: Standin, run_dir: Path) -> None:
    result = autoglm("restart", "m", "--run-dir", str(run_dir))
    assert result.code == 66
    assert result.err == "m-1: no such model\n"
    assert "m-0: ready after" in result.out
    assert "gateway" not in result.out


def test_down_reports_what_ends_and_forces_it_after_the_timeout(
    autoglm: Any, run: Standin, run_dir: Path
) -> None:
    result = autoglm("down", "--timeout", "0", "--run-dir", str(run_dir))
    assert result.code == 0
    assert run.stops == 2
    assert result.out.splitlines()[0] == "gateway: stopped"
    assert result.out.splitlines()[-1] == "stopped"
