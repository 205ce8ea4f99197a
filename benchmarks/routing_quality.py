"""How well the policies route: a simulated fleet of 64 pods in virtual time, six traces.

The gateway's own code decides, pods are simulated (see `fleet.pod`). `oracle` is PrefixAffinity
with an index that knows every pod's cache; `two gateways` are two that share nothing.
"""

from __future__ import annotations

from pathlib import Path

from autoglm.api.traffic import RoutingPolicy
from benchmarks.fleet.oracle import Oracle
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


def run(output: Path, *, quick: bool) -> None:
    report = Report("routing", "64 simulated pods, the same traces for all", _COLUMNS)
    report.notes.append("busiest pod: how much longer it worked than the mean")
    for trace, make in TRACES.items():
        sessions, mixed = make(Source(1), 1.0), trace == "mixed fleet"
        for policy in _QUICK if quick else _POLICIES:
            report.rows.append(_row(trace, policy, _run(policy, sessions, mixed)))
        for name, result in (
            ("PrefixAffinity, two gateways", _run("PrefixAffinity", sessions, mixed, gateways=2)),
            ("LatencyAware, two gateways", _run("LatencyAware", sessions, mixed, gateways=2)),
            ("oracle", _oracle(sessions, mixed)),
        ):
            report.rows.append(_row(trace, name, result))
    report.publish(output)


def _run(policy: RoutingPolicy, sessions: list[Session], mixed: bool, gateways: int = 1) -> Result:
    pods = fleet(mixed=mixed)
    return Simulation([Gateway(policy, pods, seed) for seed in range(gateways)], pods).run(sessions)


def _oracle(sessions: list[Session], mixed: bool) -> Result:
    pods = fleet(mixed=mixed)
    gateway = Gateway("PrefixAffinity", pods, 0)
    index = Oracle(pods, [view.url for view in gateway.views])
    gateway.router.memory.prefixes = index
    simulation = Simulation([gateway], pods)
    simulation.asked = lambda gateway, call, job: index.tell(job.prompt)
    return simulation.run(sessions)


def _row(trace: str, routing: str, result: Result) -> dict[str, str | float]:
    return {
        "trace": trace,
        "routing": routing,
        "prefix hit rate": round(result.hit_rate, 3),
        "first token p50 ms": 1e3 * result.first_token(0.5),
        "p99 ms": 1e3 * result.first_token(0.99),
        "mean latency s": result.mean_latency,
        "output tokens/s": result.output_rate,
        "busiest pod": result.imbalance,
    }
