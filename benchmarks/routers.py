"""What each router costs in front of the same mock pod: requests, tokens, latency, CPU, memory.

Each round goes through all ways (`ways`), so that a drifting machine hits all alike; figures are
medians over the rounds, and a ratio is the median of the ratios of the rounds. The mock responds at
once, or with 20 ms before each token. Nothing is pinned: client, router and mock share the machine,
for all alike. Another table has our requirements, met or missed (`routers_verdict`).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from benchmarks import load, profiles, rivals, routers_plot, routers_verdict, ways
from benchmarks.report import Report, Row, median_spread
from benchmarks.routers_cases import Case, selected
from benchmarks.routers_verdict import Measured, Results
from benchmarks.ways import Way

COLUMNS = (
    *("case", "way", "requests/s", "spread", "tokens/s", "first p50 ms", "first p99 ms"),
    *("later p50 ms", "p99 ms", "longest gap ms", "CPU us/request", "CPU us/chunk", "MB", "errors"),
)
ROUNDS = 3
_SECONDS = 1.0
_PROFILE_SECONDS = 5.0


def run(
    directory: Path,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    names: Sequence[str] = (),
    rounds: int | None = None,
    profiled: str | None = None,
) -> Report:
    """`only` are patterns of cases' names, or `required`; `names` are ways. All without them."""
    if "required" in only:
        only = [one.case for one in routers_verdict.requirements()]
    chosen = selected(only, quick=quick)
    names = names or ways.NAMES
    if profiled and profiled not in names:
        raise click.UsageError(f"--profile {profiled}: not among the ways of this run; see --ways")
    if profiled:
        profiles.check()
    report = Report("routers", "Routers in front of one mock pod", COLUMNS, width=200)
    ways.build()
    if set(names) & set(rivals.NAMES):
        rivals.install()
    results: dict[tuple[str, str], Measured] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        key, all_ways = ways.started(Path(scratch), stack, names)
        for case in chosen:
            print(f"{case.name} ...", file=sys.stderr, flush=True)
            of_case = case.ways(all_ways)
            results |= measured(case, of_case, key, rounds or (1 if quick else ROUNDS))
            for way in (way for way in of_case if way.name == profiled):
                report.notes.extend(profile(case, way, key, directory))
    report.rows.extend(row(one, results) for one in results.values())
    report.publish(directory)
    verdict = routers_verdict.report(results, report)
    if verdict.rows:
        verdict.publish(directory)
    routers_plot.draw(report.rows, directory / "routers.svg", report.conditions)
    return report


def measured(case: Case, chosen: Sequence[Way], key: str, rounds: int) -> Results:
    found: dict[str, list[dict[str, Any]]] = {way.name: [] for way in chosen}
    for _ in range(rounds):
        for way in chosen:
            found[way.name].append(once(case, way, key))
    return {(case.name, name): Measured(case, name, of) for name, of in found.items()}


def once(case: Case, way: Way, key: str, seconds: float = _SECONDS) -> dict[str, Any]:
    how = load.Load(
        case.clients,
        requests=1_000_000,
        # Connections, and whatever is made at the first request.
        warmup=case.clients,
        headers=case.headers(way, key),
        limit_seconds=seconds,
    )
    before = way.cpu_seconds()
    found = load.offer(case.kind, case.address(way), [case.work()], how)
    microseconds = (way.cpu_seconds() - before) * 1e6
    warmed_up = 1 + case.clients / max(1, found["requests"])
    return found | {
        "cpu_request": microseconds / max(1, found["requests"] * warmed_up),
        "cpu_chunk": microseconds / max(1, found["messages"] * warmed_up),
        "megabytes": way.megabytes(),
    }


def profile(case: Case, way: Way, key: str, directory: Path) -> list[str]:
    """Lines of a run of its own, so that no figure has the cost of the profiler."""
    assert way.pid is not None
    file = directory / f"profile-{way.name}-{case.name}.txt"
    directory.mkdir(parents=True, exist_ok=True)
    with profiles.recording(way.pid, file, _PROFILE_SECONDS):
        once(case, way, key, _PROFILE_SECONDS)
    return [f"{case.name}, {way.name}, share of busy time (py-spy):", *profiles.shares(file)]


def row(one: Measured, results: Results) -> Row:
    case, median = one.case, one.median
    rate, spread = median_spread(one.requests_per_second)
    direct = results.get((case.name, "direct"))
    first = median(lambda f: f["time_to_first_message"]["p50"] * 1000)
    return {
        "case": case.name,
        "kind": case.kind,
        "prompt": case.prompt,
        "tokens": case.response,
        "clients": case.clients,
        "way": one.way,
        "requests/s": rate,
        "spread": spread,
        "tokens/s": median(lambda f: f["tokens"] / f["seconds"]),
        "first p50 ms": first,
        "first p99 ms": median(lambda f: f["time_to_first_message"]["p99"] * 1000),
        **({"later p50 ms": statistics.median(one.first_later_than(direct))} if direct else {}),
        "p99 ms": median(lambda f: f["latency"]["p99"] * 1000),
        "longest gap ms": median(lambda f: f["longest_gap"]["max"] * 1000),
        "CPU us/request": median(lambda f: f["cpu_request"]),
        "CPU us/chunk": "" if case.is_unary else median(lambda f: f["cpu_chunk"]),
        "MB": median(lambda f: f["megabytes"]),
        "errors": one.errors,
    }
