"""How much memory this process takes, and how much it may: its cgroup's limit, or the machine's.

Read from Linux's files (proc(5), cgroups(7)); elsewhere nothing is known.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MIB = 1024 * 1024
_STATM = "/proc/self/statm"
_CGROUPS = Path("/sys/fs/cgroup")


def tune_allocator() -> None:
    """Keeps the event loop from waiting for memory, with glibc (mallopt(3)).

    A buffer of a MiB or more gets a mapping of its own. Left to itself the threshold rises to
    32 MiB with the first large body that is freed; from then on a body that grows as it arrives is
    copied, which stops the event loop for 17 ms.

    Up to 16 MiB that are freed stay with the process, so that the pieces of the next large gRPC
    message need no new pages, which take longer than copying it. With more a body would grow
    there too, and be copied when it needs a mapping. `malloc_trim` gives them back.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 16 * _MIB)


def resident_bytes() -> int | None:
    """Returns the resident memory of this process; None where the system does not report it."""
    file = _statm()
    return None if file is None else int(os.pread(file, 100, 0).split()[1]) * _PAGE_BYTES


@cache
def _statm() -> int | None:
    """Stays open for as long as the process, so that a look costs microseconds."""
    try:
        return os.open(_STATM, os.O_RDONLY)
    except OSError:
        return None


def limit_bytes(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """What this process may take, all others aside."""
    machine = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
    return min([machine, *_limits(cgroups, own)])


def _limits(cgroups: Path, own: Path) -> list[int]:
    """Of the process's cgroup and those around it; in a container its own is the root."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found: list[int] = []
    for _, controllers, path in lines:
        if not controllers:
            found += _of_path(cgroups, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _of_path(cgroups / "memory", path, "memory.limit_in_bytes")
    return found


def _of_path(root: Path, path: str, name: str) -> list[int]:
    """A path that is not there is seen from outside of the container; the root then counts."""
    directory = Path(os.path.normpath(f"{root}/{path}"))
    around = [d for d in (directory, *directory.parents) if d.is_relative_to(root)] or [root]
    texts = [(d / name).read_text().strip() for d in around if (d / name).exists()]
    return [int(text) for text in texts if text.isdigit()]
