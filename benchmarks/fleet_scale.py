"""Whether a thousand pods are routed as well as sixty-four: simulated fleets, equal load a pod.

Conversations and shared prompts of `routing`, through one gateway and through as many as such a
fleet has, with the pods' KV events and without, and with pods that report as seldom as gateways
of so many request. Decisions are timed as well.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from autoglm.gateway.endpoints.load_watch import load_interval
from autoglm.gateway.settings import GatewaySettings
from benchmarks.fleet.simulation import REPORT_SECONDS, Gateway, Result, Simulation, fleet
from benchmarks.fleet.traces import TRACES, Source
from benchmarks.report import Report, Row

PODS = (64, 250, 1000)
QUICK = (64, 250)
# Of a fleet of sixty-four, the load that the traces were made for.
_BASE = 64
GATEWAYS = (1, 8)
_COLUMNS = (
    *("trace", "pods", "gateways", "events", "report interval s", "prefix hit rate"),
    *("first token p50 ms", "p99 ms", "output tokens/s a pod", "busiest pod"),
    "microseconds a decision",
)


def run(output: Path, *, quick: bool) -> Report:
    report = Report("fleet-scale", "The same load a pod on fleets of several sizes", _COLUMNS)
    for pods in QUICK if quick else PODS:
        one, several = GATEWAYS
        seldom = load_interval(pods, GatewaySettings().load_messages_per_second)
        for gateways, with_events, interval in (
            (one, False, REPORT_SECONDS),
            (several, False, REPORT_SECONDS),
            (several, True, REPORT_SECONDS),
            (several, True, seldom),
        ):
            print(f"{pods} pods, {gateways} gateways ...", file=sys.stderr, flush=True)
            report.rows.append(_row("chat", pods, gateways, with_events, interval))
    report.publish(output)
    return report


def _row(trace: str, size: int, gateways: int, with_events: bool, interval: float) -> Row:
    pods = fleet(size, with_events=with_events)
    made = [Gateway("PrefixAffinity", pods, seed) for seed in range(gateways)]
    timed = [_Timed(gateway.router) for gateway in made]
    for gateway, watch in zip(made, timed, strict=True):
        gateway.router = watch  # type: ignore[assignment]  # a Router with a clock
    simulation = Simulation(made, pods, interval=interval, one_by_one=interval > REPORT_SECONDS)
    found: Result = simulation.run(TRACES[trace](Source(1), size / _BASE / 2))
    return {
        "trace": trace,
        "pods": size,
        "gateways": gateways,
        "events": "yes" if with_events else "no",
        "report interval s": interval,
        "prefix hit rate": round(found.hit_rate, 3),
        "first token p50 ms": found.first_token(0.5) * 1e3,
        "p99 ms": found.first_token(0.99) * 1e3,
        "output tokens/s a pod": found.output_rate / size,
        "busiest pod": found.imbalance,
        "microseconds a decision": sum(t.seconds for t in timed) / len(found.jobs) * 1e6,
    }


class _Timed:
    """A router whose decisions are timed."""

    def __init__(self, router: Any) -> None:
        self._route, self.memory = router.route, router.memory
        self.seconds = 0.0

    def route(self, *arguments: Any) -> Any:
        begun = time.perf_counter()
        decision = self._route(*arguments)
        self.seconds += time.perf_counter() - begun
        return decision
