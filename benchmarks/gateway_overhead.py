"""What the gateway costs: the same requests direct to a pod and through the gateway.

The pod runs the echo engine at full speed, so that the gateway's share shows. Prompts of several
sizes, several numbers of clients, and an open loop of 200 requests a second.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tests.support import processes
from tests.support.processes import Process

from benchmarks import load
from benchmarks.report import Report, Row, median_spread

COLUMNS = (
    *("kind", "prompt", "clients", "way", "requests/s", "tokens/s"),
    *("mean ms", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"),
)
SIZES = {"200 B": 200, "8 KB": 8_000, "200 KB": 200_000}
STALL = "autoglm_event_loop_lag_worst_seconds"


@dataclass(frozen=True, slots=True)
class Case:
    """One row's worth of load."""

    kind: load.Kind
    size: str
    clients: int
    rate: float = 0

    def work(self) -> load.Work:
        words = "word " * (SIZES[self.size] // 5)
        return load.Work("echo", words, 32 if self.kind.endswith("stream") else 4)

    @property
    def label(self) -> str:
        return f"{self.clients}" if not self.rate else f"{self.rate:.0f}/s"


def cases(quick: bool) -> list[Case]:
    kinds: tuple[load.Kind, ...] = ("grpc-unary", "grpc-stream", "rest-unary", "rest-stream")
    clients = (1, 16) if quick else (1, 16, 64)
    sizes = ("200 B",) if quick else tuple(SIZES)
    closed = [Case(k, s, c) for k, s, c in product(kinds, sizes, clients)]
    paced = [Case(k, "200 B", 64, 200.0) for k in ("grpc-unary", "rest-unary")]
    return closed + [Case(c.kind, c.size, c.clients, c.rate) for c in paced]


def run(directory: Path, *, quick: bool) -> Report:
    repeats = 1 if quick else 3
    title = "Gateway overhead: echo pod, direct against routed"
    report = Report("gateway_overhead", title, COLUMNS)
    with tempfile.TemporaryDirectory() as logs:
        fast = (
            "--echo-kv-blocks",
            "1000000",
            "--max-num-seqs",
            "1024",
            "--max-model-len",
            "100000",
        )
        pod = processes.echo_pod(Path(logs), "echo", *fast)
        with processes.running(pod):
            gateway = processes.gateway(Path(logs), [pod])
            with processes.running(gateway):
                for case in cases(quick):
                    print(f"{case} ...", file=sys.stderr, flush=True)
                    report.rows.extend(rows(case, pod, gateway, repeats))
                report.notes.append(
                    f"Worst event-loop stall of the gateway: {worst_stall(gateway)}"
                )
    report.publish(directory)
    return report


def rows(case: Case, pod: Process, gateway: Process, repeats: int) -> list[Row]:
    """Direct and routed alternate, so that a drifting machine hits both alike."""
    ways: dict[str, Process] = {"direct": pod, "routed": gateway}
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, process in ways.items():
            results[way].append(once(case, process))
    direct = latency(results["direct"])
    return [row(case, way, results[way], direct) for way in ways]


def once(case: Case, process: Process) -> dict[str, Any]:
    grpc = case.kind.startswith("grpc")
    address = process.grpc_address if grpc else process.http_address
    # The echo engine takes a tenth of a second for the tokens of a large prompt.
    each = 2 if case.size == "200 KB" else 8
    requests = 600 if case.rate else max(20, case.clients * each)
    return load.run(
        case.kind,
        address,
        case.work(),
        clients=case.clients,
        requests=requests,
        warmup=case.clients,
        rate=case.rate,
    )


def latency(results: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds; medians over the repeats."""
    return {
        q: median_spread([r["latency"][q] * 1000 for r in results])[0]
        for q in ("mean", "p50", "p99")
    }


def row(case: Case, way: str, results: list[dict[str, Any]], direct: dict[str, float]) -> Row:
    own = latency(results)
    added = {f"added {q} ms": "" if way == "direct" else own[q] - direct[q] for q in ("p50", "p99")}
    return {
        "kind": case.kind,
        "prompt": case.size,
        "clients": case.label,
        "way": way,
        "requests/s": median_spread([r["requests"] / r["seconds"] for r in results])[0],
        "tokens/s": median_spread([r["tokens"] / r["seconds"] for r in results])[0],
        **{f"{q} ms": own[q] for q in ("mean", "p50", "p99")},
        **added,
    }


def worst_stall(gateway: Process) -> str:
    return f"{gateway.metric(STALL) * 1000:.1f} ms"
