"""One private network, mount and process namespace for nodes, and their cgroups. Linux, as root.

Ending it is killing one process: the kernel then ends every other, and drops mounts, interfaces,
routes and packet filters. Cgroups are the only thing that lives outside; `stop` removes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kube.daemon import STOP_SECONDS, ClusterFailed, leashed
from tests.support.processes import eventually

_SCRIPT = Path(__file__).with_name("namespace.sh")
_CGROUPS = Path("/sys/fs/cgroup")
KUBELETS = Path("/var/lib/kubelet")
_CLONE_NEWNET = 0x40000000


@dataclass(slots=True)
class Namespace:
    cgroups: Sequence[str]
    """Names, unique on the machine."""
    addresses: Sequence[str]
    """Of the nodes."""
    service_network: str
    kubelets: Path
    """What is seen as KUBELETS inside."""
    _outer: subprocess.Popen[str] | None = field(default=None, init=False)
    _made: list[Path] = field(default_factory=list, init=False)

    def start(self) -> None:
        self.kubelets.mkdir(parents=True)
        for directory in _hierarchies():
            for name in self.cgroups:
                self._make_cgroup(directory / name)
        flags = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
        arguments = (" ".join(self.addresses), self.service_network, str(self.kubelets))
        self._outer = subprocess.Popen(
            leashed(["unshare", *flags, "bash", str(_SCRIPT), *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._outer.stdout is not None and self._outer.stderr is not None
        if self._outer.stdout.readline() != "ready\n":
            raise ClusterFailed(f"no namespace for the node: {self._outer.stderr.read().strip()}")

    @property
    def init(self) -> int:
        """Process 1 of the namespaces, by its number outside."""
        assert self._outer is not None, "the namespace was not started"
        outer = self._outer.pid
        return int(Path(f"/proc/{outer}/task/{outer}/children").read_text())

    def prefix(self) -> Sequence[str]:
        """Put before a command, runs it inside."""
        return ("nsenter", f"--target={self.init}", "--net", "--mount", "--pid")

    def network_prefix(self) -> Sequence[str]:
        """Only the network is the namespace's."""
        return ("nsenter", f"--net=/proc/{self.init}/ns/net")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, and threads and processes it starts, are on the node's network."""
        with Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net").open() as back:
            with Path(f"/proc/{self.init}/ns/net").open() as there:
                _set_network(there.fileno())
            try:
                yield
            finally:
                _set_network(back.fileno())

    def stop(self) -> None:
        if self._outer is not None:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(self.init, signal.SIGKILL)
            self._outer.communicate(timeout=STOP_SECONDS)
            self._outer = None
        # Members vanish a moment after their process.
        eventually(self._removed, STOP_SECONDS, f"{self._made} removed")

    def _make_cgroup(self, group: Path) -> None:
        group.mkdir()
        self._made.append(group)
        # Where a new group has no processors and memory yet (cgroup v1), nothing may run in it.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (group / name).exists() and _is_v1():
                (group / name).write_text((group.parent / name).read_text())

    def _removed(self) -> bool:
        with contextlib.suppress(OSError):
            while self._made:
                for directory, _, _ in os.walk(self._made[-1], topdown=False):
                    Path(directory).rmdir()
                self._made.pop()
        return not self._made


def _set_network(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace (needs root)")


def _is_v1() -> bool:
    return not (_CGROUPS / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    if not _is_v1():
        return [_CGROUPS]
    return [d for d in sorted(_CGROUPS.iterdir()) if d.is_dir() and not d.is_symlink()]
