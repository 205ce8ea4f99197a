"""What our pod costs: plain AsyncLLM, our gRPC pod, and vLLM's OpenAI server, in one run.

All servers stand ready and are measured in turn, round after round, each time another one first,
so that a machine whose speed drifts hits all alike; medians with the lowest and highest value. A
share is the median of each round's own shares. An engine at rest takes no time.
AsyncLLM has no client process beside it, the others have.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.support import processes

from benchmarks import load
from benchmarks.report import Report, Row, median_spread

MODEL = load.ROOT / "examples/tiny-glm/model"
COLUMNS = (
    *("streams", "server", "tokens/s", "spread", "of AsyncLLM", "messages/s"),
    *("first token p50 ms", "first token p99 ms"),
)
Measure = Callable[[int], dict[str, Any]]
Series = dict[str, list[float]]
MAX_NUM_SEQS = 32


def run(directory: Path, *, quick: bool, gather: str = "") -> Report:
    streams = (1, 8) if quick else (1, 8, 32)
    repeats = 1 if quick else 11
    report = Report("pod_overhead", "Pod overhead: 200 greedy tokens a request", COLUMNS)
    extra = ("--gather-milliseconds", gather) if gather else ()
    with tempfile.TemporaryDirectory() as logs:
        servers = {
            "AsyncLLM in process": bare_engine(Path(logs)),
            "gRPC pod": pod(Path(logs), *extra),
            "gRPC pod, no gathering": pod(
                Path(logs), "--gather-milliseconds", "0", name="pod-ungathered"
            ),
            "vLLM OpenAI server": vllm_server(Path(logs)),
        }
        results = measured(servers, streams, repeats)
    for count in streams:
        base = results["AsyncLLM in process"][count]["tokens/s"]
        report.rows.extend(row(count, name, results[name][count], base) for name in servers)
    report.publish(directory)
    return report


def measured(
    servers: Mapping[str, AbstractContextManager[Measure]], streams: Sequence[int], repeats: int
) -> dict[str, dict[int, Series]]:
    """For each server and number of streams, lists of figures, one entry a round."""
    results: dict[str, dict[int, Series]] = {n: {c: {} for c in streams} for n in servers}
    with ExitStack() as stack:
        measures: dict[str, Measure] = {}
        for name, server in servers.items():
            print(f"starting {name} ...", file=sys.stderr, flush=True)
            measures[name] = stack.enter_context(server)
            measures[name](max(streams))
        for turn, count in itertools.product(range(repeats), streams):
            print(f"round {turn + 1}, {count} streams ...", file=sys.stderr, flush=True)
            for name in rotated(list(measures), turn):
                for key, value in figures(measures[name](count)).items():
                    results[name][count].setdefault(key, []).append(value)
    return results


def rotated(names: Sequence[str], turn: int) -> Sequence[str]:
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def figures(result: dict[str, Any]) -> dict[str, float]:
    first = result["time_to_first_message"]
    return {
        "tokens/s": result["tokens"] / result["seconds"],
        "messages/s": result.get("messages", result["tokens"]) / result["seconds"],
        "first token p50 ms": first["p50"] * 1000,
        "first token p99 ms": first["p99"] * 1000,
    }


def row(count: int, name: str, series: Series, base: Sequence[float]) -> Row:
    rate, spread = median_spread(series["tokens/s"])
    others = {k: median_spread(v)[0] for k, v in series.items() if k != "tokens/s"}
    share = median(own / bare for own, bare in zip(series["tokens/s"], base, strict=True))
    shares = {"of AsyncLLM": f"{share:.3f}"}
    head: Row = {"streams": count, "server": name, "tokens/s": rate, "spread": spread}
    return {**head, **shares, **others}


def requests_for(streams: int) -> int:
    return max(10, 4 * streams)


@contextmanager
def bare_engine(logs: Path) -> Iterator[Measure]:
    work = load.Work()
    command = (sys.executable, "-m", "benchmarks.bare_engine", str(MODEL), str(MAX_NUM_SEQS))
    environment = {**os.environ, **processes.VLLM_ENVIRONMENT}
    with (
        (logs / "bare.log").open("w") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            cwd=load.ROOT,
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        if not child.stdout.readline():
            raise RuntimeError((logs / "bare.log").read_text()[-3000:])

        def measure(count: int) -> dict[str, Any]:
            assert child.stdin is not None and child.stdout is not None
            load: dict[str, Any] = {"clients": count, "requests": requests_for(count)}
            load |= {"tokens": work.tokens, "prompt": work.prompt}
            child.stdin.write(json.dumps(load) + "\n")
            child.stdin.flush()
            result: dict[str, Any] = json.loads(child.stdout.readline())
            return result

        yield measure
        child.stdin.close()


@contextmanager
def pod(logs: Path, *arguments: str, name: str = "pod") -> Iterator[Measure]:
    extra = ("--max-num-seqs", str(MAX_NUM_SEQS), *arguments)
    process = processes.vllm_pod(logs, MODEL, name, *extra, compiled=True)
    with processes.running(process):
        yield lambda count: load.run(
            "grpc-stream",
            process.grpc_address,
            load.Work(),
            clients=count,
            requests=requests_for(count),
        )


@contextmanager
def vllm_server(logs: Path) -> Iterator[Measure]:
    with processes.plain_vllm(
        logs, MODEL, "--max-num-seqs", str(MAX_NUM_SEQS), compiled=True
    ) as address:
        yield lambda count: load.run(
            "rest-stream", address, load.Work(), clients=count, requests=requests_for(count)
        )
