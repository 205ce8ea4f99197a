from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm.common.process import memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
MB = 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")


def limit(root: Path, own: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "own").write_text(own)
    return memory.limit_bytes(root, root / "own")


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
    assert memory.limit_bytes(tmp_path, tmp_path / "missing") == MACHINE


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's files")
def test_what_a_process_takes_is_seen() -> None:
    before = memory.resident_bytes()
    filled = bytearray(64 * MB)
    after = memory.resident_bytes()
    assert before is not None and after is not None
    assert len(filled) * 0.9 < after - before < 2 * len(filled)


_PAGES = """
import io, resource
from autoglm.common.process.memory import tune_allocator
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
