"""Signals, garbage collections, memory and open files of a process."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from autoglm.common import process
from autoglm.common.process import (
    LATEST_SECONDS,
    QUIET_REQUESTS,
    QUIET_SECONDS,
    ExitCode,
    Shutdown,
    collect_garbage,
    connections_within,
    full_collection_due,
)

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
MB = 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")


_TWO_SIGNALS = """
import asyncio, sys
from autoglm.common.process import Shutdown
async def main():
    shutdown = Shutdown()
    shutdown.install()
    print("ready", flush=True)
    await shutdown.wait()
    print("draining", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_requested_shutdown_ends_every_wait() -> None:
    shutdown = Shutdown()
    waiting = [asyncio.create_task(shutdown.wait()) for _ in range(2)]
    shutdown.request()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_the_second_forces(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TWO_SIGNALS], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, number)
        assert child.stdout.readline() == "draining\n"
        os.kill(child.pid, number)
        assert child.wait(10) == 128 + number


@pytest.mark.parametrize(
    ("seconds", "requests", "due"),
    [
        (QUIET_SECONDS, 0, True),
        (QUIET_SECONDS, QUIET_REQUESTS, True),
        (QUIET_SECONDS - 0.1, 0, False),
        (QUIET_SECONDS, QUIET_REQUESTS + 1, False),
        (LATEST_SECONDS, 1000, True),
    ],
)
def test_full_collection_waits_for_a_quiet_moment_within_a_bound(
    seconds: float, requests: int, due: bool
) -> None:
    assert full_collection_due(seconds, requests) is due


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("thresholds")
async def test_no_full_collection_is_automatic_once_it_runs() -> None:
    running = asyncio.create_task(collect_garbage(lambda: 0))
    await asyncio.sleep(0)
    assert gc.get_threshold()[2] >= 1_000_000
    assert gc.get_freeze_count() > 0
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.usefixtures("thresholds")
async def test_a_middle_collection_has_few_objects_to_traverse() -> None:
    """Objects that many open streams have allocated since the last one are traversed in one go."""
    running = asyncio.create_task(collect_garbage(lambda: 1000))
    await asyncio.sleep(0)
    traversed = 0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal traversed
        if phase == "start" and info["generation"] == 1:
            traversed = max(traversed, len(gc.get_objects(0)) + len(gc.get_objects(1)))

    gc.callbacks.append(note)
    kept = [[number] for number in range(50_000)]
    gc.callbacks.remove(note)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(kept) == 50_000
    assert 0 < traversed < 12_000


def limit(root: Path, own: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "own").write_text(own)
    return process.memory_limit_bytes(root, root / "own")


def test_in_a_container_the_root_has_the_limit(tmp_path: Path) -> None:
    files = {"memory.max": f"{100 * MB}\n"}
    assert limit(tmp_path, "0::/\n", files) == 100 * MB
    assert limit(tmp_path, "0::/../../pod/other\n", files) == 100 * MB


def test_smallest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "memory.max": "max",
        "pods/memory.max": f"{50 * MB}",
        "pods/one/memory.max": f"{60 * MB}",
    }
    assert limit(tmp_path, "0::/pods/one\n", files) == 50 * MB


def test_limits_of_the_first_version_are_found(tmp_path: Path) -> None:
    files = {"memory/some/where/memory.limit_in_bytes": f"{70 * MB}"}
    own = "5:cpu:/\n4:memory:/some/where\n0::/\n"
    assert limit(tmp_path, own, files) == 70 * MB


def test_without_a_limit_it_is_the_machines_memory(tmp_path: Path) -> None:
    assert limit(tmp_path, "0::/a\n", {"memory.max": "max\n"}) == MACHINE
    assert process.memory_limit_bytes(tmp_path, tmp_path / "missing") == MACHINE


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's files")
def test_resident_memory_follows_an_allocation() -> None:
    before = process.resident_bytes()
    filled = bytearray(64 * MB)
    after = process.resident_bytes()
    assert before is not None and after is not None
    assert len(filled) * 0.9 < after - before < 2 * len(filled)


_PAGES = """
import io, resource
from autoglm.common.process import tune_allocator
tune_allocator()
def taken(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def message(megabytes):
    pieces = [b"x" * 16_000 for _ in range(megabytes * 1_000_000 // 16_000)]
    return [*pieces, b"".join(pieces)]
"""
_SECOND_MESSAGE = """
taken(lambda: message(8))
print(taken(lambda: message(8)))
"""
_BODY = """
taken(lambda: message(60))
body, chunk, others = io.BytesIO(), b"x" * 65_536, []
writes = []
for _ in range(900):
    writes.append(taken(lambda: body.write(chunk)))
    others.append(b"x" * 5000)
print(max(writes))
"""
_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc's allocator")


@_glibc
def test_the_pieces_of_a_second_message_take_no_new_pages() -> None:
    joined = 8_000_000 / _PAGE
    assert _pages(_SECOND_MESSAGE) < 1.2 * joined


@_glibc
def test_no_step_of_a_growing_body_takes_many_pages_after_a_large_message() -> None:
    assert _pages(_BODY) * _PAGE < 8 * MB


def _pages(work: str) -> int:
    command = [sys.executable, "-c", _PAGES + work]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize(
    ("limit", "wanted", "fitting"),
    [(1024 * 1024, 10_000, 10_000), (32_768, 10_000, 10_000), (4096, 10_000, 1536), (256, 100, 96)],
)
def test_connections_leave_room_for_pods_and_files(limit: int, wanted: int, fitting: int) -> None:
    assert connections_within(limit, wanted, ports=2) == fitting
    assert 2 * fitting <= limit - limit // 4


def test_at_least_one_connection_fits_whatever_the_limit() -> None:
    assert connections_within(16, 10_000, ports=2) == 1


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    program = (
        "import resource; from autoglm.common.process import raise_open_file_limit;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512));"
        "print(raise_open_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    result = subprocess.run((sys.executable, "-c", program), capture_output=True, check=True)
    assert result.stdout.split() == [b"512"] * 3
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 512


def test_each_exit_code_has_a_word_for_machines() -> None:
    found = [code.reason for code in (ExitCode.MODEL_NOT_FOUND, ExitCode.NOT_A_MODEL)]
    assert found == ["ModelNotFound", "NotAModel"]
