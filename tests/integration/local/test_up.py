"""`up` runs manifests, follows their changes, and ends with a meaningful exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from autoglm.common.process import ExitCode
from autoglm.local.planning import Addresses, Policy
from autoglm.local.runtime import Timing
from autoglm.local.up import UpOptions, up

FAKE = str(Path(__file__).with_name("fake_process.py"))


def manifest(mode: str = "ready", replicas: int = 1) -> str:
    return f"""
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {{name: m}}
spec:
  replicas: {replicas}
  model: {{}}
  engine: {{type: echo, args: {{fail: {mode}}}}}
  drain: {{gracePeriodSeconds: 5}}
"""


@dataclass
class Screen:
    """Lines that `up` has written, to wait for."""

    capture: pytest.CaptureFixture[str]
    text: str = ""

    async def until(self, words: str, count: int = 1) -> None:
        while self.text.count(words) < count:
            await asyncio.sleep(0.01)
            self.text += self.capture.readouterr().out


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str]) -> Screen:
    return Screen(capsys)


def options(run_dir: Path) -> UpOptions:
    return UpOptions(
        run_dir=run_dir,
        gateway=Addresses("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"),
        policy=Policy(backoff_initial=0.01),
        timing=Timing(settle=0.0, kill_margin=0.1),
        program=(sys.executable, "-I", "-S", FAKE),
        stop=asyncio.Event(),
    )


@asynccontextmanager
async def upped(file: Path, given: UpOptions) -> AsyncIterator[asyncio.Task[int]]:
    ready: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(up([file], replace(given, on_ready=ready.set_result)))
    await ready
    assert not ready.result().grpc.endswith(":0")
    yield task
    assert given.stop is not None
    given.stop.set()
    assert await task == 0


async def test_a_manifest_runs_until_it_is_stopped(tmp_path: Path, screen: Screen) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest(replicas=2))

    async with upped(file, options(tmp_path / "run")):
        await screen.until("ready: gRPC 127.0.0.1:")

    await screen.until("stopped", count=3)
    assert screen.text.index("gateway: stopped") < screen.text.index("m-0: stopped")


async def test_a_saved_manifest_is_applied(tmp_path: Path, screen: Screen) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest())

    async with upped(file, options(tmp_path / "run")):
        await screen.until("ready: gRPC")
        (tmp_path / "draft").write_text(manifest(replicas=2))
        (tmp_path / "draft").replace(file)  # as editors do
        await screen.until("m-1: ready")

    await screen.until("m-0: stopped")
    assert "m-0: starting" in screen.text.split("manifest applied")[0]
    assert "m-0: starting" not in screen.text.split("manifest applied")[1]


async def test_a_bad_manifest_changes_nothing(tmp_path: Path, screen: Screen) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest())

    async with upped(file, options(tmp_path / "run")):
        await screen.until("ready: gRPC")
        file.write_text(manifest(replicas=-1))
        await screen.until("manifest not applied")
        await screen.until("spec.replicas = -1")
        assert "stopping" not in screen.text


async def test_a_manifest_that_is_bad_from_the_start_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("kind: Pod")

    assert (
        await up([file, tmp_path / "none.yaml"], options(tmp_path / "run")) == ExitCode.BAD_MANIFEST
    )

    shown = capsys.readouterr().err
    assert f"{file}: kind" in shown
    assert "none.yaml: the document: can't be read" in shown
    assert not (tmp_path / "run").exists()


async def test_a_run_directory_has_one_user(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest())
    given = options(tmp_path / "run")

    async with upped(file, given):
        assert await up([file], options(tmp_path / "run")) == ExitCode.ADDRESS_IN_USE


@pytest.mark.parametrize("kind", ["grpc", "http", "metrics"])
async def test_an_address_at_which_another_process_listens_ends_it_at_once(
    tmp_path: Path, screen: Screen, kind: str
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest())
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        given = options(tmp_path / "run")
        given = replace(given, gateway=replace(given.gateway, **{kind: address}))
        assert await up([file], given) == ExitCode.ADDRESS_IN_USE
    await screen.until(f"cannot listen on {address}: Address already in use; end what listens")


async def test_a_permanent_failure_ends_a_run_without_watch(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest("broken"))

    assert await up([file], replace(options(tmp_path / "run"), watch=False)) == 66


@pytest.mark.parametrize("correction", ["fail: ready", "fail: broken"])
async def test_a_watched_run_waits_with_a_failed_replica_until_the_manifest_is_saved(
    tmp_path: Path, screen: Screen, correction: str
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest("broken"))
    given = options(tmp_path / "run")
    task = asyncio.create_task(up([file], given))

    await screen.until("m-0: no such model: x (no restart until the manifest changes)")
    assert screen.text.count("m-0: starting") == 1
    file.write_text(manifest("broken").replace("fail: broken", correction))
    again = "ready: gRPC" if "ready" in correction else "m-0: no such model: x"
    await screen.until(again, count=1 if "ready" in correction else 2)

    assert given.stop is not None
    given.stop.set()
    assert await task == 0


async def test_a_forced_stop_announces_no_restart(tmp_path: Path, screen: Screen) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(manifest("stubborn"))
    task = asyncio.create_task(up([file], options(tmp_path / "run")))
    await screen.until("ready: gRPC")

    os.kill(os.getpid(), signal.SIGINT)
    await screen.until("stopping: waiting")
    os.kill(os.getpid(), signal.SIGINT)

    assert await task == 128 + signal.SIGINT
    await screen.until("m-0: killed")
    assert "restart in" not in screen.text
