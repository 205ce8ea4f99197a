"""A thousand open streams of 50 tokens a second each: pauses between tokens, memory, CPU.

The mock sends a token of each stream every 20 ms. What is longer between two tokens of a stream is
a stall of the way in between, or of the machine: `direct` has the machine's own. The first seconds,
in which all streams begin at once, are left out.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import load, rivals, ways
from benchmarks.counts import requests
from benchmarks.report import Report, Row
from benchmarks.routers_cases import Case
from benchmarks.ways import Way

COLUMNS = (
    *("wire", "way", "messages/s", "gap p50 ms", "p99 ms", "p99.9 ms", "max ms", "failed"),
    *("RSS KB/stream", "cores busy"),
)
# Without routers that were slower at it than vllm-router.
WAYS = (
    *("direct", "bare-envoy", "sketch", "embedded", "embedded-stock", "envoy", "envoy-stock"),
    "vllm-router",
)
_STREAMS = 1000
_PACE_MILLISECONDS = 20
_TOKENS, _QUICK_TOKENS = 512, 256
_BEGUN_SECONDS = 3.0
_SAMPLE_SECONDS = 1.0


def run(directory: Path, *, quick: bool = False, names: Sequence[str] = ()) -> Report:
    names = names or WAYS
    tokens = _QUICK_TOKENS if quick else _TOKENS
    title = f"{_STREAMS:,} streams, a token each {_PACE_MILLISECONDS} ms"
    report = Report("streams", title, COLUMNS)
    ways.build()
    if set(names) & set(rivals.NAMES):
        rivals.install()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        key, chosen = ways.started(Path(scratch), stack, names)
        kinds: tuple[load.Kind, ...] = ("rest-stream", "grpc-stream")
        for case in (Case(kind, tokens, _STREAMS, pace=_PACE_MILLISECONDS) for kind in kinds):
            for way in case.ways(chosen):
                print(f"{case.name}, {way.name} ...", file=sys.stderr, flush=True)
                report.rows.append(row(case, way, key))
    held = asyncio.run(requests.open_streams())
    report.notes.append(
        "Python's own part of an open stream, embedded plane (tracemalloc, without sockets): "
        + ", ".join(f"{bytes_:,.0f} bytes over {wire}" for wire, bytes_ in held.items())
    )
    report.publish(directory)
    return report


def row(case: Case, way: Way, key: str) -> Row:
    before = way.megabytes()
    with ThreadPoolExecutor(1) as threads:
        offered = threads.submit(_offered, case, way, key)
        peak, cores = before, 0.0
        while not offered.done():
            spent = way.cpu_seconds()
            time.sleep(_SAMPLE_SECONDS)
            cores = max(cores, (way.cpu_seconds() - spent) / _SAMPLE_SECONDS)
            peak = max(peak, way.megabytes())
        found = offered.result()
    gaps = {name: seconds * 1000 for name, seconds in found["gaps"].items()}
    return {
        "wire": case.kind.partition("-")[0],
        "way": way.name,
        "messages/s": found["messages"] / found["seconds"],
        "gap p50 ms": gaps["p50"],
        "p99 ms": gaps["p99"],
        "p99.9 ms": gaps["p999"],
        "max ms": gaps["max"],
        "failed": found["errors"],
        "RSS KB/stream": (peak - before) * 1000 / case.clients,
        "cores busy": cores,
    }


def _offered(case: Case, way: Way, key: str) -> dict[str, Any]:
    how = load.Load(
        case.clients,
        requests=case.clients,
        headers=case.headers(way, key),
        gaps_from_seconds=_BEGUN_SECONDS,
    )
    return load.offer(case.kind, case.address(way), [case.work()], how)
