"""What is left of the service under overload: goodput, latency, fairness, memory, and
how long the event loop stalls with a thousand streams open.

Echo pods with vLLM's arithmetic of blocks, a token rate and a prefill rate, behind one gateway;
an open loop offers multiples of what they can do. Every request has a deadline, and only what ends
within it counts. A new gateway for each row, so that its memory is that of the row.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from tests.support import processes
from tests.support.processes import Process

from autoglm.gateway.identity.keys import KeyEntry, new_key
from benchmarks import load
from benchmarks.report import Report, Row

LOADS = (0.5, 1.0, 2.0, 5.0, 10.0)
DEADLINE_SECONDS = 10.0
PODS = 2
POD = (
    *("--max-num-seqs", "32", "--echo-token-rate", "25", "--echo-prefill-rate", "2000"),
    *("--echo-kv-blocks", "640", "--max-model-len", "4096"),
)
COLUMNS = (
    *("offered", "offered/s", "goodput/s", "tokens/s", "of peak", "TTFT p50 ms", "TTFT p99 ms"),
    *("in time", "429", "503", "504", "other", "gateway MB", "worst stall ms"),
)
FAIR_COLUMNS = (
    *("light tenant", "sent", "served", "TTFT p50 ms", "TTFT p99 ms", "TTFT p99 / quiet"),
    *("response p50 ms", "response p99 ms", "response p99 / quiet"),
)
# Streams open at once, tokens a second of each, and whether they all begin in the same moment.
STREAMS = ((1000, 2, False), (1000, 2, True), (1000, 5, False))
STREAM_COLUMNS = (
    *("open streams", "tokens/s each", "failed", "messages/s", "TTFT p99 ms", "latency p99 ms"),
    *("undisturbed ms", "gateway MB", "KB a stream", "worst stall ms"),
)
STREAM_SECONDS = 12


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long is measured."""

    capacity: float
    row: float
    fair: float


def run(directory: Path, *, quick: bool) -> None:
    seconds = Seconds(8, 12, 25) if quick else Seconds(20, 30, 60)
    with tempfile.TemporaryDirectory() as logs:
        pods = [processes.echo_pod(Path(logs), f"echo-{n}", *POD) for n in range(PODS)]
        with processes.running(*pods):
            stage = Stage(Path(logs), pods)
            capacity = stage.capacity(seconds.capacity)
            stage.goodput(capacity, seconds.row).publish(directory)
            stage.fairness(capacity, seconds.fair).publish(directory)
        open_streams(Path(logs), quick).publish(directory)


def works() -> list[load.Work]:
    """Requests of many lengths, with prompts that share no prefix."""
    rng = Random(1)
    return [
        load.Work("echo", f"{n} " + "word " * rng.randint(40, 80), rng.randint(20, 80))
        for n in range(200)
    ]


class Stage:
    """The pods; a gateway for each measurement."""

    def __init__(self, logs: Path, pods: Sequence[Process]) -> None:
        self._logs = logs
        self._pods = pods
        self._works = works()
        self._keys: dict[str, str] = {}

    def capacity(self, seconds: float) -> float:
        """Requests a second that the pods end with as many clients as keep them full."""
        with self._gateway() as gateway:
            self._offer(gateway, load.Load(clients=128, requests=64, timeout_seconds=60))
            how = load.Load(clients=96, requests=int(30 * seconds), timeout_seconds=60)
            report = self._offer(gateway, how)
        return float((report["requests"] - report["errors"]) / report["seconds"])

    def goodput(self, capacity: float, seconds: float) -> Report:
        title = (
            f"Overload: {PODS} echo pods, deadline {DEADLINE_SECONDS:.0f} s, "
            f"capacity {capacity:.1f} requests/s"
        )
        report = Report("overload", title, COLUMNS)
        rows = [self._row(times, capacity, seconds) for times in LOADS]
        # By tokens: with more to choose from, shorter requests are in time.
        peak = max(float(row["tokens/s"]) for row in rows)
        report.rows.extend({**row, "of peak": float(row["tokens/s"]) / peak} for row in rows)
        return report

    def fairness(self, capacity: float, seconds: float) -> Report:
        report = Report("overload_fairness", "A light tenant beside a flood", FAIR_COLUMNS)
        quiet: dict[str, Any] = {}
        for label, times in (("quiet", 0.0), ("beside 2 x", 2.0), ("beside 5 x", 5.0)):
            print(f"light tenant {label} ...", file=sys.stderr, flush=True)
            light = self._light(times * capacity, seconds)
            quiet = quiet or light
            report.rows.append(fair_row(f"{label} capacity" if times else label, light, quiet))
        return report

    def _row(self, times: float, capacity: float, seconds: float) -> Row:
        print(f"{times} x capacity ...", file=sys.stderr, flush=True)
        rate = times * capacity
        with self._gateway() as gateway:
            got = self._offer(gateway, paced(rate, seconds))
            memory, stall = peak_megabytes(gateway), worst_stall(gateway)
        statuses = dict(got["statuses"])
        named = {
            "429": statuses.pop("ResourceExhausted", 0),
            "503": statuses.pop("Unavailable", 0),
            "504": statuses.pop("DeadlineExceeded", 0),
        }
        good = got["requests"] - got["errors"]
        first = got["time_to_first_message"]
        return {
            "offered": f"{times:g} x",
            "offered/s": rate,
            "goodput/s": good / got["seconds"],
            "tokens/s": got["tokens"] / got["seconds"],
            "TTFT p50 ms": first["p50"] * 1000,
            "TTFT p99 ms": first["p99"] * 1000,
            "in time": good,
            **named,
            "other": sum(statuses.values()),
            "gateway MB": memory,
            "worst stall ms": stall,
        }

    def _light(self, flood: float, seconds: float) -> dict[str, Any]:
        """The report of two requests a second beside so many of another tenant's."""
        with self._gateway(*self._identity()) as gateway, ThreadPoolExecutor() as both:
            if flood:
                how = paced(flood, seconds + 10, self._header("heavy"))
                both.submit(self._offer, gateway, how)
                time.sleep(5)
            return self._offer(gateway, paced(2.0, seconds, self._header("light")))

    def _offer(self, gateway: Process, how: load.Load) -> dict[str, Any]:
        return load.offer("grpc-stream", gateway.grpc_address, self._works, how)

    def _header(self, tenant: str) -> str:
        return f"x-api-key:{self._keys[tenant]}"

    def _identity(self) -> tuple[str, str]:
        entries: list[KeyEntry] = []
        for tenant in ("light", "heavy"):
            self._keys[tenant], entry = new_key(tenant)
            entries.append(entry)
        file = self._logs / "keys.json"
        file.write_bytes(msgspec.json.encode({"keys": entries}))
        return ("--api-keys-file", str(file))

    @contextmanager
    def _gateway(self, *arguments: str) -> Iterator[Process]:
        gateway = processes.gateway(self._logs, self._pods, *arguments)
        with processes.running(gateway):
            processes.eventually(lambda: gateway.ready_endpoints() == len(self._pods))
            yield gateway


def open_streams(logs: Path, quick: bool) -> Report:
    """So many streams open at once; each gateway has one row, so that its memory is that row's."""
    report = Report("overload_streams", "Open streams through one gateway", STREAM_COLUMNS)
    kinds: tuple[load.Kind, ...] = ("grpc-stream", "rest-stream")
    for kind, (count, rate, burst) in product(kinds, STREAMS[:2] if quick else STREAMS):
        print(f"{count} {kind}, {rate} tokens/s ...", file=sys.stderr, flush=True)
        report.rows.append(stream_row(logs, count, kind, rate, burst=burst))
    return report


def stream_row(logs: Path, count: int, kind: load.Kind, rate: int, *, burst: bool) -> Row:
    """Either all at once, or twice as many, as fast as the first ones end."""
    many = ("--max-num-seqs", "1024", "--echo-kv-blocks", "1000000")
    pod = processes.echo_pod(logs, "many", *many, "--echo-token-rate", str(rate))
    gateway = processes.gateway(logs, [pod])
    with processes.running(pod), processes.running(gateway):
        idle, work = peak_megabytes(gateway), load.Work("echo", "word " * 40, rate * STREAM_SECONDS)
        address = gateway.grpc_address if kind.startswith("grpc") else gateway.http_address
        how = load.Load(clients=count, requests=count)
        if not burst:
            how = replace(how, requests=2 * count, rate=count / STREAM_SECONDS)
        with stalls_under(gateway, at_least=count // 4) as stalls:
            got = load.offer(kind, address, [work], how)
        grown = peak_megabytes(gateway) - idle
        return {
            "open streams": f"{count} {kind.partition('-')[0]}{' at once' * burst}",
            "tokens/s each": rate,
            "failed": got["errors"],
            "messages/s": got["messages"] / got["seconds"],
            "TTFT p99 ms": got["time_to_first_message"]["p99"] * 1000,
            "latency p99 ms": got["latency"]["p99"] * 1000,
            "undisturbed ms": STREAM_SECONDS * 1000,
            "gateway MB": grown + idle,
            "KB a stream": grown / count * 1024,
            "worst stall ms": max(stalls, default=float("nan")),
        }


def paced(rate: float, seconds: float, header: str = "") -> load.Load:
    return load.Load(
        clients=64,
        requests=int(rate * seconds),
        rate=rate,
        timeout_seconds=DEADLINE_SECONDS,
        headers=(header,) if header else (),
    )


def fair_row(label: str, light: dict[str, Any], quiet: dict[str, Any]) -> Row:
    row: dict[str, str | float | int] = {
        "light tenant": label,
        "sent": light["requests"],
        "served": light["requests"] - light["errors"],
    }
    for name, key in (("TTFT", "time_to_first_message"), ("response", "latency")):
        row |= {f"{name} {q} ms": light[key][q] * 1000 for q in ("p50", "p99")}
        row[f"{name} p99 / quiet"] = light[key]["p99"] / quiet[key]["p99"]
    return row


def peak_megabytes(process: Process) -> float:
    """The most memory that the process has had, of which all is its own."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, "Linux reports every process's peak"
    return int(found[1]) / 1024


@contextmanager
def stalls_under(gateway: Process, at_least: int) -> Iterator[list[float]]:
    """Worst stalls so far, as long as so many requests are open: full collections of garbage wait
    for fewer, and stall no client."""
    found: list[float] = []
    over = threading.Event()

    def look() -> None:
        # Seldom, since the page is made by a thread that takes turns with the loop.
        while not over.wait(2.0):
            if gateway.metric("autoglm_gateway_requests_in_flight") >= at_least:
                found.append(worst_stall(gateway))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield found
    finally:
        over.set()
        watch.join()


def worst_stall(gateway: Process) -> float:
    """Milliseconds."""
    return gateway.metric("autoglm_event_loop_lag_worst_seconds") * 1000
