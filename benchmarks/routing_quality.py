"""How well the policies route: a simulated fleet of 64 pods in virtual time, eight traces.

The gateway's own code decides, pods are simulated (see `fleet.pod`). `oracle` is PrefixAffinity
with an index that knows every pod's cache; `two gateways` are two that share nothing; with `events`
the pods send KV events, every 50 ms as they report their load.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from autoglm.api.spec.traffic import RoutingPolicy
from benchmarks.fleet.oracle import Oracle
from benchmarks.fleet.pod import Pod
from benchmarks.fleet.simulation import Gateway, Result, Simulation, fleet
from benchmarks.fleet.traces import TRACES, Session, Source
from benchmarks.report import Report

_POLICIES: tuple[RoutingPolicy, ...] = (
    "RoundRobin",
    "Random",
    "LeastRequests",
    "LeastLoaded",
    "LeastTokens",
    "PowerOfTwoChoices",
    "DynamicWeighted",
    "LatencyAware",
    "PrefixAffinity",
)
_QUICK: tuple[RoutingPolicy, ...] = ("RoundRobin", "LeastRequests", "PrefixAffinity")
# Names, policies, how many gateways, and whether pods send KV events.
_MORE: tuple[tuple[str, RoutingPolicy, int, bool], ...] = (
    ("LeastRequests, two gateways", "LeastRequests", 2, False),
    ("PrefixAffinity, two gateways", "PrefixAffinity", 2, False),
    ("PrefixAffinity, events", "PrefixAffinity", 1, True),
    ("PrefixAffinity, events, two gateways", "PrefixAffinity", 2, True),
    ("LatencyAware, two gateways", "LatencyAware", 2, False),
    ("LatencyAware, events", "LatencyAware", 1, True),
    ("LatencyAware, events, two gateways", "LatencyAware", 2, True),
)
_COLUMNS = (
    "trace",
    "routing",
    "prefix hit rate",
    "first token p50 ms",
    "p99 ms",
    "mean latency s",
    "output tokens/s",
    "busiest pod",
)


# More than one where the differences are smaller than those between seeds.
_SEEDS = {"unique": 6}


def run(output: Path, *, quick: bool) -> None:
    report = Report("routing", "64 simulated pods, the same traces for all", _COLUMNS)
    report.notes.append("busiest pod: how much longer it worked than the mean")
    report.notes.append(f"unique: means over {_SEEDS['unique']} seeds; others: one seed")
    plain = [(policy, policy, 1, False) for policy in (_QUICK if quick else _POLICIES)]
    for trace, make in TRACES.items():
        seeds = range(1, 2 if quick else 1 + _SEEDS.get(trace, 1))
        runs = [make(Source(seed), 1.0) for seed in seeds]
        for name, policy, gateways, with_events in (*plain, *_MORE):
            results = [_run(policy, run, trace, gateways, with_events=with_events) for run in runs]
            report.rows.append(_row(trace, name, results))
        report.rows.append(_row(trace, "oracle", [_oracle(run, trace) for run in runs]))
    report.publish(output)


def _pods(trace: str, *, with_events: bool = False) -> list[Pod]:
    return fleet(
        mixed=trace.startswith("mixed fleet"),
        small=trace == "small caches",
        with_events=with_events,
    )


def _run(
    policy: RoutingPolicy,
    sessions: list[Session],
    trace: str,
    gateways: int = 1,
    *,
    with_events: bool = False,
) -> Result:
    pods = _pods(trace, with_events=with_events)
    return Simulation([Gateway(policy, pods, seed) for seed in range(gateways)], pods).run(sessions)


def _oracle(sessions: list[Session], trace: str) -> Result:
    pods = _pods(trace)
    gateway = Gateway("PrefixAffinity", pods, 0)
    index = Oracle(pods, [view.url for view in gateway.views])
    gateway.router.memory.prefixes = index
    simulation = Simulation([gateway], pods)
    simulation.requested = lambda gateway, call, job: index.expect(job.prompt)
    return simulation.run(sessions)


def _row(trace: str, routing: str, results: Sequence[Result]) -> dict[str, str | float]:
    return {
        "trace": trace,
        "routing": routing,
        "prefix hit rate": round(fmean(r.hit_rate for r in results), 3),
        "first token p50 ms": 1e3 * fmean(r.first_token(0.5) for r in results),
        "p99 ms": 1e3 * fmean(r.first_token(0.99) for r in results),
        "mean latency s": fmean(r.mean_latency for r in results),
        "output tokens/s": fmean(r.output_rate for r in results),
        "busiest pod": fmean(r.imbalance for r in results),
    }
