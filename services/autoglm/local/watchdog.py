"""Ends the processes of an `autoglm up` that was killed.

Runs as a separate process with the standard library only. It reads the running processes from a
pipe (`+PID GRACE`, `-PID`), which closes when the parent exits for any reason. Then each remaining
process gets SIGTERM, and its group SIGKILL after the grace period. `Watchdog` is the parent's side.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

_POLL_SECONDS = 0.1


class Watchdog:
    """Starts the watchdog process and reports the processes to end. One line is one write."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def add(self, pid: int, grace_seconds: float) -> None:
        self._write(f"+{pid} {grace_seconds}\n")

    def remove(self, pid: int) -> None:
        self._write(f"-{pid}\n")

    def close(self) -> None:
        """End the watchdog process, and with it all processes that were not removed."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        # Without its watchdog the parent still ends its processes, unless it is killed.
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def follow(lines: Iterable[str]) -> dict[int, float]:
    """Return the processes that run when the lines end, with their grace periods in seconds."""
    alive: dict[int, float] = {}
    for line in lines:
        pid, _, grace = line[1:].partition(" ")
        if line.startswith("+"):
            alive[int(pid)] = float(grace)
        else:
            alive.pop(int(pid), None)
    return alive


def end(alive: dict[int, float]) -> None:
    """Send SIGTERM to all, then SIGKILL to each group that is left after its grace period."""
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    started = time.monotonic()
    while alive:
        waited = time.monotonic() - started
        done = [pid for pid, grace in alive.items() if waited >= grace or not _is_running(pid)]
        for pid in done:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            del alive[pid]
        time.sleep(_POLL_SECONDS if alive else 0)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end(follow(sys.stdin))
