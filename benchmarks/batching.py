"""What continuous batching buys: the same load with max_num_seqs 1, 8 and 32.

The mission's documents claim that batching takes mean latency from 980 to 310 ms, a ratio of 0.316.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import processes

from benchmarks import load
from benchmarks.pod_overhead import MODEL
from benchmarks.report import Report, median_spread

CLAIM = 310 / 980
CLIENTS = 32
COLUMNS = ("max_num_seqs", "mean ms", "spread", "of max_num_seqs 1", "p50 ms", "p99 ms", "tokens/s")


def run(directory: Path, *, quick: bool) -> Report:
    repeats, requests = (1, 64) if quick else (3, 128)
    title = f"Batching: {CLIENTS} clients, 100 tokens a request, through the gRPC pod"
    report = Report("batching", title, COLUMNS)
    base = 0.0
    for size in (1, 8, 32):
        print(f"starting a pod with max_num_seqs {size} ...", file=sys.stderr, flush=True)
        results = measured(size, repeats, requests)
        mean, spread = median_spread([r["latency"]["mean"] * 1000 for r in results])
        base = base or mean
        report.rows.append(
            {
                "max_num_seqs": size,
                "mean ms": mean,
                "spread": spread,
                "of max_num_seqs 1": f"{mean / base:.3f}",
                "p50 ms": median_spread([r["latency"]["p50"] * 1000 for r in results])[0],
                "p99 ms": median_spread([r["latency"]["p99"] * 1000 for r in results])[0],
                "tokens/s": median_spread([r["tokens"] / r["seconds"] for r in results])[0],
            }
        )
    report.notes.append(f"The documents' own ratio is {CLAIM:.3f} (980 to 310 ms).")
    report.publish(directory)
    return report


def measured(size: int, repeats: int, requests: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as logs:
        pod = processes.vllm_pod(
            Path(logs), MODEL, "pod", "--max-num-seqs", str(size), compiled=True
        )
        with processes.running(pod):
            return [
                load.run(
                    "grpc-stream",
                    pod.grpc_address,
                    load.Work(tokens=100),
                    clients=CLIENTS,
                    requests=requests,
                    warmup=CLIENTS,
                )
                for _ in range(repeats)
            ]
