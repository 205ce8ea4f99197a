"""The process and its operating system: exit codes, signals, drain, garbage, memory, open files."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

_MIB = 1024 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ExitCode(IntEnum):
    """Exit codes by which a supervisor distinguishes causes; docs/exit-codes.md lists them.

    After 64 to 79 another start fails alike until something changes; after 80 and more it may help.
    """

    BAD_SETTINGS = 64
    BAD_MANIFEST = 65
    MODEL_NOT_FOUND = 66
    NOT_A_MODEL = 67
    UNSUPPORTED_QUANTIZATION = 68
    OUT_OF_MEMORY = 69
    MISSING_PACKAGE = 70
    UNSUPPORTED_DEVICE = 71
    CONTEXT_TOO_LONG = 72
    START_FAILED = 73
    MISSING_COMPILER = 74
    ADDRESS_IN_USE = 75
    GATED_MODEL = 76
    UNTRUSTED_CODE = 77
    DISK_FULL = 78
    ENGINE_DEAD = 80
    HUB_UNREACHABLE = 81
    START_STALLED = 82

    @property
    def is_final(self) -> bool:
        """Return whether another start fails alike until something changes."""
        return self < ExitCode.ENGINE_DEAD

    @property
    def reason(self) -> str:
        """Return the word for machines: ModelNotFound."""
        return self.name.title().replace("_", "")


class Shutdown:
    """Waits for the first SIGTERM or SIGINT; from then on a second one ends the process at once.

    Each `app.py` decides what draining means. The exit code of a forced stop is 128 + the signal's
    number, as shells have it.
    """

    def __init__(self) -> None:
        self._requested = asyncio.Event()

    def install(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.signal, number)

    def signal(self, number: int) -> None:
        if self._requested.is_set():
            os._exit(128 + number)
        self._requested.set()

    def request(self) -> None:
        """Start draining without a signal."""
        self._requested.set()

    async def wait(self) -> None:
        await self._requested.wait()


# New calls are held until none has come for so many steps in a row, or for the longest time.
_HOLD_STEPS, _HOLD_STEP_SECONDS, _MOST_HOLD_SECONDS = 5, 0.01, 1.0


class DrainGate:
    """Stops a gRPC server without dropping a call: while it stops, new calls wait at the gate."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._calls = 0

    async def passed(self) -> None:
        """Return at once unless calls are held."""
        self._calls += 1
        await self._open.wait()

    async def stop(self, server: grpc.aio.Server, grace: float) -> asyncio.Task[None]:
        """Start to stop the server and return the task that waits for its end.

        A stopping server drops calls that have arrived but are not handled yet. While new calls are
        held, clients that send one call after the other wait: soon no further call arrives.
        """
        self._open.clear()
        await self._until_quiet()
        stopping = asyncio.create_task(server.stop(grace))
        await asyncio.sleep(0)
        self._open.set()
        return stopping

    async def _until_quiet(self) -> None:
        """Wait until no call comes any more; on a busy machine that takes longer."""
        end, quiet = time.monotonic() + _MOST_HOLD_SECONDS, 0
        while quiet < _HOLD_STEPS and time.monotonic() < end:
            calls = self._calls
            await asyncio.sleep(_HOLD_STEP_SECONDS)
            quiet = quiet + 1 if self._calls == calls else 0


# Garbage. A full collection traverses all live objects: with a thousand open streams that takes
# some hundred milliseconds, in which nothing is relayed. Python would run one every few seconds
# while streams start and end; here it waits for a quiet moment. A collection of the middle
# generation takes as long if it runs after ten young ones; here it runs sooner, on fewer objects.

# Allocations before a young collection, young ones before a middle one; no automatic full one. A
# middle one traverses at most the product of both, which takes a few milliseconds.
_GC_THRESHOLDS = (2_000, 3, 1_000_000)
_GC_CHECK_SECONDS = 1.0
# At most so many open requests are a quiet moment, which is used this often.
QUIET_REQUESTS, QUIET_SECONDS = 32, 10.0
# Without a quiet moment it runs after this time, since garbage takes memory.
LATEST_SECONDS = 300.0


def full_collection_due(seconds: float, requests: int) -> bool:
    """Return whether to collect `seconds` after the last full one, with `requests` open."""
    return seconds >= (QUIET_SECONDS if requests <= QUIET_REQUESTS else LATEST_SECONDS)


async def collect_garbage(requests: Callable[[], int]) -> None:
    """Schedule full garbage collections until cancelled; `requests` counts the open ones.

    Objects that are alive now are taken to live as long as the process and are never traversed
    again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    last, is_worthwhile = time.monotonic(), False
    while True:
        await asyncio.sleep(_GC_CHECK_SECONDS)
        is_worthwhile = is_worthwhile or requests() > 0
        if is_worthwhile and full_collection_due(time.monotonic() - last, requests()):
            gc.collect()
            last, is_worthwhile = time.monotonic(), False


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_CGROUPS = Path("/sys/fs/cgroup")


def tune_allocator() -> None:
    """Keep the event loop from waiting for memory, with glibc (mallopt(3)).

    A buffer of a MiB or more gets a mapping of its own. By default the threshold rises to 32 MiB
    with the first large body that is freed; from then on a body that grows as it arrives is copied,
    which stops the event loop for 17 ms.

    Up to 16 MiB that are freed stay with the process, so that the pieces of the next large gRPC
    message need no new pages, which take longer than copying it. With more a body would grow
    there too, and be copied when it needs a mapping. `malloc_trim` gives them back.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 16 * _MIB)


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not report it."""
    file = _statm()
    return None if file is None else int(os.pread(file, 100, 0).split()[1]) * _PAGE_BYTES


@cache
def _statm() -> int | None:
    """Open the file once for the life of the process, so that reading it takes microseconds."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None


def memory_limit_bytes(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the memory that this process may use if all others use none.

    It is the smallest limit of the machine, the process's cgroup and the cgroups around it; in a
    container its own cgroup is the root.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _cgroup_limits(cgroups, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _cgroup_limits(cgroups / "memory", path, "memory.limit_in_bytes")
    return min(limits)


def _cgroup_limits(root: Path, path: str, name: str) -> list[int]:
    directory = Path(os.path.normpath(f"{root}/{path}"))
    # A path outside the root is that of the machine, as seen from a container: the root counts.
    around = [d for d in (directory, *directory.parents) if d.is_relative_to(root)] or [root]
    texts = [(d / name).read_text().strip() for d in around if (d / name).exists()]
    return [int(text) for text in texts if text.isdigit()]


# With a limit of "unlimited": the kernel's own default for `fs.nr_open`.
_MOST_FILES = 1024 * 1024
_LEAST_RESERVE = 64
LOCAL_SHORTAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""Errors of a connection that are due to this process or machine, not to the peer."""


def raise_open_file_limit() -> int:
    """Raise the soft limit of open files to the hard one and return the new limit.

    Each connection is an open file. The soft limit, 1,024 by default, is for programs that use
    `select(2)`, which ours do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else hard
    if soft not in (resource.RLIM_INFINITY, wanted) and soft < wanted:
        # Fails where the kernel's own bound is lower: the soft limit stays.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


def connections_within(limit: int, wanted: int, ports: int) -> int:
    """Return how many connections, at most `wanted`, each of `ports` may accept.

    `limit` is that of open files, a quarter of which are reserved: for connections to pods, files
    and pipes.
    """
    room = limit - max(_LEAST_RESERVE, limit // 4)
    return max(1, min(wanted, room // ports))
