"""What one large request costs the others: bodies of many small values and of few large ones.

One server samples its own event loop: a gateway with either data plane before two echo pods, or a
pod of either engine. A neighbour sends 20 small requests a second all the while, 4 to vLLM. The
longest stop is the smaller of the time between two samples of a millisecond and the process's own
CPU time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles

from tests.support import processes
from tests.support.processes import Process

from benchmarks import load
from benchmarks.bounds_cases import Case, cases, neighbour
from benchmarks.neighbour import Neighbour
from benchmarks.report import Report, Row, machine_load

COLUMNS = (
    *("wire", "body", "MB", "status", "longest stop ms", "CPU ms", "seconds"),
    *("neighbour p50 ms", "neighbour p99 ms"),
)
MODEL = load.ROOT / "examples/tiny-glm/model"
# What a failed request of the neighbour counts as.
_FAILED_SECONDS = 20.0
_ROOM = ("--max-model-len", "1100000", "--echo-kv-blocks", "100000")


@dataclass(frozen=True, slots=True)
class Server:
    """What samples its loop into the file `stops`."""

    process: Process
    stops: Path

    def longest_stops(self) -> dict[str, float]:
        """Since the last call, in seconds."""
        self.stops.unlink(missing_ok=True)
        self.process.signal(signal.SIGUSR2)
        processes.eventually(self.stops.exists, 120)
        found: dict[str, float] = json.loads(self.stops.read_text())
        return found

    def is_ready(self) -> bool:
        is_gateway = self.process.name == "gateway"
        return self.process.ready_endpoints() > 0 if is_gateway else self.process.is_ready()


def run(directory: Path, *, quick: bool, target: str = "gateway") -> Report:
    name = "bounds" if target == "gateway" else f"bounds-{target}"
    title = f"One large request beside small ones: {target}"
    report = Report(name, title, COLUMNS, notes=[machine_load()])
    chosen = TARGETS[target]
    small = Neighbour(neighbour(chosen.model), 1 / chosen.rate)
    with chosen.serve() as server:
        for case in cases(chosen.model, 10 if quick else 1):
            print(f"{case.wire} {case.body} ...", file=sys.stderr, flush=True)
            report.rows.append(_measured(server, case, small))
    report.notes.append(machine_load())
    report.publish(directory)
    return report


@contextmanager
def _gateway(plane: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as logs:
        pods = [processes.echo_pod(Path(logs), f"echo-{i}", *_ROOM) for i in range(2)]
        with processes.running(*pods):
            gateway = processes.gateway(Path(logs), pods, "--data-plane", plane)
            with _sampled(gateway) as server:
                processes.eventually(lambda: gateway.ready_endpoints() == 2, 60)
                yield server


@contextmanager
def _pod(make: Callable[[Path], Process]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as logs, _sampled(make(Path(logs))) as server:
        yield server


@contextmanager
def _sampled(process: Process) -> Iterator[Server]:
    server = Server(process, process.log.with_suffix(".stops"))
    command = [sys.executable, "-m", "benchmarks.bounds_process", *process.arguments]
    flags = ("grpc", process.grpc_address), ("http", process.http_address)
    for name, address in (*flags, ("metrics", process.metrics_address)):
        command += (f"--{name}-address", address)
    environment = {
        **os.environ,
        **process.environment,
        "AUTOGLM_STOPS_FILE": str(server.stops),
    }
    with process.log.open("ab") as log:
        process.child = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        process.wait_ready()
        yield server
    finally:
        process.stop()


@dataclass(frozen=True, slots=True)
class Target:
    """What serves `model`, and how many requests a second its neighbour sends."""

    serve: Callable[[], AbstractContextManager[Server]]
    model: str = "echo"
    rate: int = 20


TARGETS = {
    "gateway": Target(partial(_gateway, "embedded")),
    "envoy": Target(partial(_gateway, "envoy")),
    "pod": Target(partial(_pod, lambda logs: processes.echo_pod(logs, "pod", *_ROOM))),
    "vllm": Target(partial(_pod, lambda logs: processes.vllm_pod(logs, MODEL)), "tiny-glm", 4),
}


def _measured(server: Server, case: Case, small: Neighbour) -> Row:
    processes.eventually(server.is_ready, 60)
    before = server.longest_stops()
    with small.at(server.process) as outcomes:
        time.sleep(1.0)
        started = time.monotonic()
        status = case.send(server.process)
        took = time.monotonic() - started
        time.sleep(1.0)
    after = server.longest_stops()
    seconds = [_FAILED_SECONDS if one.is_failed else one.seconds for one in outcomes]
    cuts = quantiles(seconds, n=100) if len(seconds) > 1 else [0.0] * 99
    return {
        "wire": case.wire,
        "body": case.body,
        "MB": case.size / 1e6,
        "status": status,
        "longest stop ms": 1000 * after["stop"],
        "longest stop ms, wall": 1000 * after["wall"],
        "longest stop ms, CPU": 1000 * after["cpu"],
        "CPU ms": 1000 * (after["process"] - before["process"]),
        "seconds": took,
        "neighbour p50 ms": 1000 * cuts[49],
        "neighbour p99 ms": 1000 * cuts[98],
    }
