"""Commands reach the run of a directory, and take nothing that a run left behind for one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from autoglm.local.control import NotRunning, Run, in_use, served, sole_user


class Recorded:
    """A run that notes what it is to do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def state(self) -> dict[str, Any]:
        return {"pid": 7, "done": self.done}

    async def restart(self, name: str) -> dict[str, Any] | None:
        self.done.append(f"restart {name}")
        return {"name": name, "state": "ready"} if name == "m-0" else None

    def stop(self) -> None:
        self.done.append("stop")


async def test_a_run_is_inspected_restarted_and_stopped_through_its_directory(
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / ("long" * 40)  # longer than the path of a socket may be
    run_dir.mkdir()
    run = Run(run_dir)
    async with served(run_dir, Recorded()):
        assert await asyncio.to_thread(run.restart, "m-0") == {"name": "m-0", "state": "ready"}
        assert await asyncio.to_thread(run.restart, "none") == {}
        await asyncio.to_thread(run.stop)
        state = await asyncio.to_thread(run.state)
    assert state == {"pid": 7, "done": ["restart m-0", "restart none", "stop"]}
    with pytest.raises(NotRunning, match="no `autoglm up` runs in"):
        run.state()


async def test_the_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    async with served(tmp_path, Recorded()):
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def open_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user may enter, in a process that takes no right away."""
    tmp_path.chmod(0o755)
    before = os.umask(0)
    yield tmp_path
    os.umask(before)
    assert not list(tmp_path.iterdir())


async def test_no_other_user_reaches_the_socket_while_it_is_made(
    open_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    bind = socket.socket.bind

    def noting(listener: socket.socket, address: str) -> None:
        bind(listener, address)
        modes.append(Path(address).stat().st_mode & Path(address).absolute().parent.stat().st_mode)

    monkeypatch.setattr(socket.socket, "bind", noting)
    async with served(open_dir, Recorded()):
        pass
    assert [mode & 0o077 for mode in modes] == [0]


async def test_a_socket_that_a_killed_run_left_is_no_run_and_in_no_way(
    tmp_path: Path,
) -> None:
    with chdir(tmp_path), socket.socket(socket.AF_UNIX) as left:
        left.bind("control.sock")

    assert not Run(tmp_path).is_alive
    async with served(tmp_path, Recorded()):
        assert await asyncio.to_thread(lambda: Run(tmp_path).is_alive)


def test_a_directory_without_a_run_has_none(tmp_path: Path) -> None:
    assert not Run(tmp_path).is_alive
    assert not Run(tmp_path / "absent").is_alive


def test_a_directory_has_one_user_at_a_time(tmp_path: Path) -> None:
    with sole_user(tmp_path), pytest.raises(BlockingIOError), sole_user(tmp_path):
        pass
    with sole_user(tmp_path):
        pass


def test_sentences_name_the_command_for_this_directory() -> None:
    assert "end it by `autoglm down`, or" in in_use(Path(".autoglm"))
    assert "end it by `autoglm down --run-dir other`, or" in in_use(Path("other"))
