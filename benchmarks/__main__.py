"""Benchmarks: tables on the screen, JSON in build/benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from benchmarks import (
    batching,
    bounds,
    counts,
    decision,
    fleet_scale,
    gateway_overhead,
    growth,
    kv_events,
    load,
    operator_scale,
    overload,
    pod_overhead,
    routers,
    routing_pods,
    routing_quality,
    routing_rivals,
    soak,
)
from benchmarks.report import Report

BENCHMARKS: dict[str, Callable[..., Report]] = {
    "pod": pod_overhead.run,
    "batching": batching.run,
    "bounds": bounds.run,
    "bounds-envoy": partial(bounds.run, target="envoy"),
    "bounds-pod": partial(bounds.run, target="pod"),
    "bounds-vllm": partial(bounds.run, target="vllm"),
    "fleet-scale": fleet_scale.run,
    "gateway": gateway_overhead.run,
    "operator": operator_scale.run,
    "overload": overload.run,
    "counts": counts.run,
    "decision": decision.run,
    "growth": growth.run,
    "kv-events": kv_events.run,
    "routers": routers.run,
    "routing": routing_quality.run,
    "routing-pods": routing_pods.run,
    "routing-rivals": routing_rivals.run,
    "soak": soak.run,
}
# They need no load generator, which needs go.
_BOUNDS = {"bounds", "bounds-envoy", "bounds-pod", "bounds-vllm"}
_ALONE = {*_BOUNDS, "counts", "decision", "fleet-scale", "kv-events", "routing"}
_EPILOG = """\b
Examples:
  python -m benchmarks                   all of them but the soak, about 50 minutes
  python -m benchmarks soak              20 minutes of mixed traffic through a gateway
  python -m benchmarks gateway --quick   one, with fewer cases and no repeats
  python -m benchmarks counts --record   rewrite the counts that a test compares with
"""


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--quick", is_flag=True, help="Fewer cases, no repeats.")
@click.option("--record", is_flag=True, help="Of counts alone: record them as the baseline.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=load.ROOT / "build/benchmarks",
    help="Directory for JSON.",
)
def main(names: tuple[str, ...], quick: bool, record: bool, output: Path) -> None:
    """Measure pods, gateway, operator, routing, and overload. Needs go; `make kube-tools` too."""
    if record:
        if names != ("counts",):
            raise click.UsageError("--record is for counts alone: python -m benchmarks counts")
        counts.record()
        return
    if not names or not _ALONE.issuperset(names):
        load.build()
    for name in names or (name for name in BENCHMARKS if name != "soak"):
        BENCHMARKS[name](output, quick=quick)


if __name__ == "__main__":
    main()
