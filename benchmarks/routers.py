"""What each router costs in front of the same mock pod: requests, tokens, latency, CPU, memory.

Each round goes through all ways (`ways`), so that a drifting machine hits all alike; figures are
medians over the rounds. The mock responds at once, or with 20 ms before each token. Nothing is
pinned: client, router and mock share the machine, for all alike.
"""

from __future__ import annotations

import base64
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm import v1
from autoglm.client.requests import hint_metadata
from benchmarks import load, rivals, routers_plot, ways
from benchmarks.report import Report, Row, median_spread
from benchmarks.ways import Way

COLUMNS = (
    *("kind", "prompt", "tokens", "clients", "way", "requests/s", "spread", "tokens/s"),
    *("of bare Envoy", "first p50 ms", "first p99 ms", "added p50 ms", "p99 ms", "longest gap ms"),
    *("CPU s / M tokens", "MB", "errors"),
)
_SECONDS = 1.0
_WORD = "word "


@dataclass(frozen=True, slots=True)
class Case:
    """One row for each way. `prompt` is bytes, `pace` milliseconds before each message of
    `together` tokens, as pods gather them when they have many streams.
    """

    kind: load.Kind
    tokens: int
    clients: int
    prompt: int = 200
    pace: int = 0
    together: int = 1

    @property
    def response(self) -> str:
        pace = f", {self.pace} ms apart" if self.pace else ""
        return f"{self.tokens}{pace}" + (f", by {self.together}" if self.together > 1 else "")

    def work(self) -> load.Work:
        wish = ways.wish(self.tokens, self.pace, self.together)
        text = f"{wish} {_WORD * (self.prompt // len(_WORD))}"
        return load.Work(ways.MODEL, text, self.tokens)

    def ways(self, all_ways: Iterable[Way]) -> list[Way]:
        at_once = self.tokens * self.clients
        return [w for w in all_ways if self.address(w) and at_once <= w.most_tokens]

    def address(self, way: Way) -> str:
        return way.grpc if self.kind.startswith("grpc") else way.http

    def headers(self, way: Way, key: str) -> tuple[str, ...]:
        names = (f"x-api-key:{key}",)
        if not way.is_our_client:
            return names
        request = v1.GenerateRequest.FromString(self.work().message())
        metadata = hint_metadata(request).items()
        return names + tuple(f"{n}:{base64.b64encode(v).decode()}" for n, v in metadata)


def cases() -> list[Case]:
    found: list[Case] = []
    for wire in ("grpc", "rest"):
        unary: load.Kind = "grpc-unary" if wire == "grpc" else "rest-unary"
        stream: load.Kind = "grpc-stream" if wire == "grpc" else "rest-stream"
        found += [Case(unary, 4, clients) for clients in (1, 16, 64)]
        found += [Case(stream, 64, clients) for clients in (1, 16, 64, 256, 1000)]
        found += [Case(stream, 512, clients) for clients in (1, 16, 64, 256, 1000)]
        found += [Case(stream, 512, 64, together=8)]
        found += [Case(stream, 64, 16, prompt=size) for size in (8_000, 200_000)]
        found.append(Case(stream, 64, 1000, pace=20))
    return found


def quick_cases() -> list[Case]:
    return [
        Case("grpc-unary", 4, 1),
        Case("grpc-stream", 64, 16),
        Case("rest-stream", 64, 16),
        Case("rest-stream", 512, 64),
    ]


def run(directory: Path, *, quick: bool) -> Report:
    ways.build()
    rivals.install()
    report = Report("routers", "Routers in front of one mock pod", COLUMNS, width=220)
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        key, all_ways = ways.started(Path(scratch), stack)
        for case in quick_cases() if quick else cases():
            print(f"{case} ...", file=sys.stderr, flush=True)
            report.rows.extend(rows(case, case.ways(all_ways), key, rounds))
    report.notes.extend(comparisons(report.rows))
    report.publish(directory)
    routers_plot.draw(report.rows, directory / "routers.svg")
    return report


def rows(case: Case, chosen: Sequence[Way], key: str, rounds: int) -> list[Row]:
    results: dict[str, list[dict[str, Any]]] = {way.name: [] for way in chosen}
    for _ in range(rounds):
        for way in chosen:
            results[way.name].append(once(case, way, key))
    found = [row(case, name, of) for name, of in results.items()]
    by_way = {str(one["way"]): one for one in found}
    direct, bare = by_way["direct"], by_way["bare Envoy"]
    return [one | relative(one, direct, bare) for one in found]


def once(case: Case, way: Way, key: str) -> dict[str, Any]:
    how = load.Load(
        case.clients,
        requests=1_000_000,
        # Connections, and whatever is made at the first request.
        warmup=case.clients,
        headers=case.headers(way, key),
        limit_seconds=_SECONDS,
    )
    before = way.cpu_seconds()
    found = load.offer(case.kind, case.address(way), [case.work()], how)
    tokens = found["tokens"] * (1 + case.clients / max(1, found["requests"]))
    return found | {
        "cpu": (way.cpu_seconds() - before) / max(1, tokens) * 1e6,
        "megabytes": way.megabytes(),
    }


def row(case: Case, way: str, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def median(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(found) for found in results)

    rates = [(found["requests"] - found["errors"]) / found["seconds"] for found in results]
    return {
        "kind": case.kind,
        "prompt": case.prompt,
        "tokens": case.response,
        "clients": case.clients,
        "way": way,
        "requests/s": median_spread(rates)[0],
        "spread": median_spread(rates)[1],
        "tokens/s": median(lambda f: f["tokens"] / f["seconds"]),
        "first p50 ms": median(lambda f: f["time_to_first_message"]["p50"] * 1000),
        "first p99 ms": median(lambda f: f["time_to_first_message"]["p99"] * 1000),
        "p99 ms": median(lambda f: f["latency"]["p99"] * 1000),
        "longest gap ms": median(lambda f: f["longest_gap"]["max"] * 1000),
        "CPU s / M tokens": median(lambda f: f["cpu"]),
        "MB": median(lambda f: f["megabytes"]),
        "errors": sum(found["errors"] for found in results),
    }


def relative(one: dict[str, Any], direct: dict[str, Any], bare: dict[str, Any]) -> dict[str, Any]:
    return {
        "of bare Envoy": one["tokens/s"] / bare["tokens/s"],
        "added p50 ms": one["first p50 ms"] - direct["first p50 ms"],
    }


def comparisons(found: Sequence[Row]) -> list[str]:
    """Our planes beside the fastest other router of each case."""
    lines = []
    for one in found:
        if not str(one["way"]).startswith("ours"):
            continue
        same = ("kind", "prompt", "tokens", "clients")
        peers = [r for r in found if all(r[c] == one[c] for c in same) and r["way"] in rivals.NAMES]
        best = max(peers, key=lambda r: float(r["tokens/s"]), default=None)
        if best is not None and float(best["tokens/s"]):
            ratio = float(one["tokens/s"]) / float(best["tokens/s"])
            case = ", ".join(f"{name} {one[name]}" for name in same)
            lines.append(f"{case}: {one['way']} {ratio:.2f} x {best['way']}")
    return lines
