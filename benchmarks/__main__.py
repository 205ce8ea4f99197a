"""Benchmarks: tables on the screen, JSON in build/benchmarks."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import (
    batching,
    decision,
    gateway_overhead,
    kv_events,
    load,
    operator_scale,
    pod_overhead,
    routing_pods,
    routing_quality,
    routing_rivals,
)

BENCHMARKS = {
    "pod": pod_overhead.run,
    "batching": batching.run,
    "gateway": gateway_overhead.run,
    "operator": operator_scale.run,
    "decision": decision.run,
    "kv-events": kv_events.run,
    "routing": routing_quality.run,
    "routing-pods": routing_pods.run,
    "routing-rivals": routing_rivals.run,
}
_EPILOG = """\b
Examples:
  python -m benchmarks                   all of them, about 45 minutes
  python -m benchmarks gateway --quick   one, with fewer cases and no repeats
"""


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--quick", is_flag=True, help="Fewer cases, no repeats.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=load.ROOT / "build/benchmarks",
    help="Directory for JSON.",
)
def main(names: tuple[str, ...], quick: bool, output: Path) -> None:
    """Measure pod, batching, gateway, operator, and routing. Needs go; `make kube-tools` too."""
    load.build()
    for name in names or BENCHMARKS:
        BENCHMARKS[name](output, quick=quick)


if __name__ == "__main__":
    main()
