"""What a request costs a gateway while many other streams are open, and what those hold.

The streams wait for their next token, one in twenty seconds; beside them one client has short
streams, then unary requests, and what the gateway's processes take for those is measured, less what
they take without.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from benchmarks import load, ways
from benchmarks.loglog import Curve, Panel, Points

STREAMS = (1, 10, 100, 1000, 10_000)
QUICK = (1, 10, 100, 1000)
REQUESTS = 300
_OPEN, _SHORT = (512, 20_000, 1), (64, 0, 1)
_IDLE_SECONDS = 4.0
_SETTLE_SECONDS = 60.0
# gRPC rejects what comes at once beyond 3,000 calls that are not accepted yet.
_WAVE = 1000
_ROOM = (
    *("--max-inflight", "20000", "--request-memory-bytes", str(2**31)),
    *("--queue-requests", "20000", "--slow-reader-seconds", "600"),
)


def panel(scratch: Path, quick: bool) -> Panel:
    load.build()
    ways.build()
    curves: list[Curve] = []
    for plane in ("embedded", "envoy"):
        with tempfile.TemporaryDirectory(dir=scratch) as place, ExitStack() as stack:
            curves += _of(plane, Path(place), stack, QUICK if quick else STREAMS)
    return Panel("open streams", "microseconds, KB a stream", tuple(curves))


def _of(plane: str, place: Path, stack: ExitStack, sizes: tuple[int, ...]) -> list[Curve]:
    messages = {"load": v1.WatchLoadResponse(max_num_seqs=20_000).SerializeToString()}
    mock = stack.enter_context(ways.mock(place, messages))
    arguments = ("gateway", "--data-plane", plane, "--envoy-concurrency", "1", *_ROOM)
    gateway = Process(
        plane, (*arguments, "--endpoint", f"grpc://{mock.grpc}"), place / "gateway.log"
    )
    stack.enter_context(processes.running(gateway))
    processes.eventually(lambda: gateway.ready_endpoints() > 0)
    way = ways.Way(plane, gateway.http_address, gateway.grpc_address, gateway.pid)
    _cost(way)
    alone, held = way.megabytes(), []
    streams, python, unary = [], [], []
    is_open = 0
    for size in sizes:
        while is_open < size:
            more = min(_WAVE, size - is_open)
            stack.enter_context(_streams(way, more, place))
            is_open += more
            processes.eventually(partial(_are_open, gateway, is_open), _SETTLE_SECONDS)
        time.sleep(2)
        whole, own = _cost(way)
        streams.append((size, whole))
        python.append((size, own))
        unary.append((size, _cost(way, "grpc-unary")[0]))
        held.append((size, (way.megabytes() - alone) * 1000 / size))
        print(f"{plane}, {size} open: {whole:.0f} us", file=sys.stderr, flush=True)
    large: Points = tuple(point for point in held if point[0] >= 100)
    return [
        Curve(f"a stream of 64 tokens, {plane}, microseconds of CPU", tuple(streams)),
        *([Curve("of which Python", tuple(python))] if plane == "envoy" else []),
        Curve(f"a unary request, {plane}, microseconds of CPU", tuple(unary)),
        Curve(f"an open stream, {plane}, KB", large),
    ]


def _cost(way: ways.Way, kind: load.Kind = "grpc-stream") -> tuple[float, float]:
    """Microseconds of CPU for one short request: of all processes, and of the gateway's own."""
    readings = (way.cpu_seconds, way.own_cpu_seconds)
    before = [read() for read in readings]
    time.sleep(_IDLE_SECONDS)
    idle = [(read() - was) / _IDLE_SECONDS for read, was in zip(readings, before, strict=True)]
    before, began = [read() for read in readings], time.monotonic()
    work = load.Work(ways.MODEL, ways.wish(*_SHORT), _SHORT[0])
    load.run(kind, way.grpc, work, clients=1, requests=REQUESTS)
    seconds = time.monotonic() - began
    whole, own = (
        (read() - was - rest * seconds) / REQUESTS * 1e6
        for read, was, rest in zip(readings, before, idle, strict=True)
    )
    return whole, own


@contextmanager
def _streams(way: ways.Way, count: int, place: Path) -> Iterator[None]:
    """So many more, until the context ends."""
    body = place / "open"
    body.write_bytes(load.Work(ways.MODEL, ways.wish(*_OPEN), _OPEN[0]).message())
    command = [
        *(str(load.BINARY), "-kind", "grpc-stream", "-address", way.grpc),
        *("-path", load.GENERATE_STREAM, "-body", str(body), "-timeout", "3600s"),
        *("-clients", str(count), "-requests", str(count), "-connections", "8"),
    ]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.kill()
        child.wait()


def _are_open(gateway: Process, count: int) -> bool:
    return gateway.metric("autoglm_gateway_requests_in_flight") >= count
