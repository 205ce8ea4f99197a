"""One long-running program of a test cluster: started with its log in a file, ended for sure.

It never outlives the process that started it. `ControlPlane` and `Node` are made of these.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 15.0


class ClusterFailed(RuntimeError):
    """A program of the cluster ended, or something never became true; ends with the log."""


def leashed(command: Sequence[str]) -> list[str]:
    """The command, killed by the kernel when its parent dies (Linux only)."""
    setpriv = shutil.which("setpriv")
    return [*((setpriv, "--pdeathsig", "KILL") if setpriv else ()), *command]


@dataclass(slots=True)
class Daemon:
    name: str
    command: Sequence[str]
    log: Path
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> Daemon:
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                leashed(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.name} was not started"
        return self.child.pid

    def check(self) -> None:
        """Raises ClusterFailed when it has ended by itself."""
        if self.child is not None and self.child.poll() is not None:
            code = self.child.returncode
            raise ClusterFailed(f"{self.name} ended with {code}; its log ends:\n{self.log_tail()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """The whole process group; SIGKILL when the signal does not end it in time."""
        if self.child is None:
            return
        self._signal(number)
        try:
            self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.child.wait(STOP_SECONDS)
        self._signal(signal.SIGKILL)
        self.child = None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def output(command: Sequence[str], text: str | None = None) -> str:
    """What a command prints, given `text`. Raises ClusterFailed with what it complains about."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
