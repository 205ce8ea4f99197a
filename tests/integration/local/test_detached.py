"""A detached run outlives the command that started it, until it is stopped or killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import eventually, is_alive

from autoglm.common.process import ExitCode
from autoglm.local import detached
from autoglm.local.control import Run, sole_user
from autoglm.local.planning import Addresses
from autoglm.local.up import UpOptions

# Each start is one of Python with all its packages, on a machine that may have much else to do.
pytestmark = pytest.mark.timeout(300)
FAKE = str(Path(__file__).with_name("fake_process.py"))
MANIFEST = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {{name: m}}
spec:
  replicas: {replicas}
  model: {{}}
  engine: {{type: echo, args: {{fail: {mode}}}}}
  drain: {{gracePeriodSeconds: 1}}
"""


def start(run_dir: Path, mode: str, lines: list[str], replicas: int = 1) -> int:
    manifest = run_dir.with_name(f"{mode}.yaml")
    manifest.write_text(MANIFEST.format(mode=mode, replicas=replicas))
    anywhere = Addresses("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
    options = UpOptions(run_dir, anywhere, program=(sys.executable, "-I", "-S", FAKE))
    return detached.start([manifest], options, lines.append)


def is_free(run_dir: Path) -> bool:
    try:
        with sole_user(run_dir):
            return True
    except BlockingIOError:
        return False


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path / "run")
    yield found
    if found.is_alive:
        found.stop()
        eventually(lambda: not found.is_alive)


def test_a_detached_run_is_ready_when_its_start_returns_and_runs_on_until_it_is_stopped(
    run: Run,
) -> None:
    lines: list[str] = []
    assert start(run.run_dir, "ready", lines) == 0
    assert any(line.startswith("ready: gRPC 127.0.0.1:") for line in lines)
    state = run.state()
    pods = {each["name"]: each["pid"] for each in state["replicas"]}
    assert state["ready"]
    assert os.getsid(state["pid"]) == state["pid"]  # no signal of a terminal reaches it

    again: list[str] = []
    assert start(run.run_dir, "ready", again) == ExitCode.ADDRESS_IN_USE
    assert again == [
        f"another `autoglm up` uses {run.run_dir}; end it by `autoglm down --run-dir "
        f"{run.run_dir}`, or choose another directory with --run-dir"
    ]

    assert run.restart("m-0")["state"] == "ready"
    restarted = {each["name"]: each["pid"] for each in run.state()["replicas"]}
    assert restarted["m-0"] != pods["m-0"]
    assert restarted["gateway"] == pods["gateway"]

    run.stop()
    eventually(lambda: not run.is_alive)
    run.wait_released()
    assert not any(is_alive(pid) for pid in restarted.values())
    assert "SIGTERM with" in (run.run_dir / "m-0.log").read_text()  # it has drained


def test_a_failure_that_a_restart_does_not_help_ends_the_start_with_its_exit_code(
    run: Run,
) -> None:
    lines: list[str] = []
    assert start(run.run_dir, "broken", lines) == 66
    assert any("m-0: no such model: x" in line for line in lines)
    assert not run.is_alive


def test_a_run_without_replicas_is_ready_once_its_gateway_listens(run: Run) -> None:
    assert start(run.run_dir, "ready", [], replicas=0) == 0
    state = run.state()
    assert state["ready"]
    assert [(each["name"], each["state"]) for each in state["replicas"]] == [("gateway", "ready")]


def test_what_a_killed_run_leaves_is_no_run_and_does_not_keep_the_directory(run: Run) -> None:
    assert start(run.run_dir, "ready", []) == 0
    state = run.state()
    os.kill(state["pid"], signal.SIGKILL)
    eventually(lambda: not run.is_alive)
    assert (run.run_dir / "control.sock").exists()
    eventually(lambda: not any(is_alive(each["pid"]) for each in state["replicas"]))
    # The kernel closes the files of a killed process one after the other.
    eventually(lambda: is_free(run.run_dir))
