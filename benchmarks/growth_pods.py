"""What a gateway takes at rest for the pods that it watches: a connection, a load stream each."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import processes
from tests.support.processes import Process

from benchmarks.loglog import Curve, Panel
from benchmarks.ways import Way

PODS = (10, 100, 1000)
_SECONDS = 10.0


def panel(scratch: Path, quick: bool) -> Panel:
    rows = [_at_rest(scratch, size) for size in (PODS[:2] if quick else PODS)]
    cpu, memory = (tuple((size, row[part]) for size, *row in rows) for part in (0, 1))
    curves = (Curve("CPU at rest, ms a second", cpu), Curve("memory, MB", memory))
    return Panel("pods that are watched", "ms a second, MB", curves)


def _at_rest(scratch: Path, size: int) -> tuple[int, float, float]:
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        file = Path(place) / "endpoints.json"
        with _pods(size, file):
            processes.eventually(file.exists, 30)
            gateway = Process(
                "gateway", ("gateway", "--endpoints-file", str(file)), Path(place) / "gateway.log"
            )
            with processes.running(gateway):
                processes.eventually(lambda: gateway.ready_endpoints() >= size, 60)
                way = Way("gateway", gateway.http_address, pid=gateway.pid)
                time.sleep(3)
                before = way.cpu_seconds()
                time.sleep(_SECONDS)
                used = (way.cpu_seconds() - before) / _SECONDS * 1000
                print(f"{size} pods: {used:.1f} ms a second", file=sys.stderr, flush=True)
                return size, used, way.megabytes()


@contextmanager
def _pods(size: int, file: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.many_pods", str(size), str(file)]
    child = subprocess.Popen(command)
    try:
        yield
    finally:
        child.kill()
        child.wait()
