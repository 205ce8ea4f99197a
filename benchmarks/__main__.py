"""Benchmarks: tables on the screen, JSON in build/benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks import (
    batching,
    bounds,
    counts,
    decision,
    fleet_scale,
    gateway_overhead,
    growth,
    h2spec,
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
    streams,
    ways,
)
from benchmarks.attacks import run as attacks
from benchmarks.attacks.kinds import KINDS

BENCHMARKS: dict[str, Callable[..., object]] = {
    "attacks": attacks.run,
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
    "h2spec": h2spec.run,
    "kv-events": kv_events.run,
    "routers": routers.run,
    "routing": routing_quality.run,
    "routing-pods": routing_pods.run,
    "routing-rivals": routing_rivals.run,
    "soak": soak.run,
    "streams": streams.run,
}
# They need no load generator, which needs go.
_BOUNDS = {"bounds", "bounds-envoy", "bounds-pod", "bounds-vllm"}
_ALONE = {
    *_BOUNDS,
    "attacks",
    "h2spec",
    "counts",
    "decision",
    "fleet-scale",
    "kv-events",
    "routing",
}
# Parts of `make soak`; attacks and soak say by their exit code what is wrong.
_BY_HAND = {"attacks", "h2spec", "soak"}
_EPILOG = """\b
Examples:
  python -m benchmarks                   all of them but soak, attacks and h2spec, an hour
  python -m benchmarks soak              20 minutes of mixed traffic through a gateway
  python -m benchmarks gateway --quick   one, with fewer cases and no repeats
  python -m benchmarks counts --record   rewrite the counts that a test compares with
  python -m benchmarks attacks           all attacks on both data planes, about 10 minutes
  python -m benchmarks attacks --planes embedded --kinds ping --kinds hpack --seconds 2
  python -m benchmarks routers           all routers, with the verdict on ours, about 20 minutes
  python -m benchmarks h2spec            HTTP/2 conformance of all ports, 4 minutes
  python -m benchmarks streams           1,000 open streams: pauses, memory, CPU; 3 minutes
  python -m benchmarks routers --only required    the cases with a requirement, 10 minutes
  python -m benchmarks routers --only 'rest-unary-*' --ways embedded-stock,vllm-router
  python -m benchmarks routers --only rest-64-x16 --ways embedded-stock,sketch --rounds 5
  python -m benchmarks routers --only rest-unary-x16 --ways embedded-stock --profile embedded-stock

\b
Kinds of attacks:
""" + "\n".join(f"  {kind.name:17} {kind.wire}: {kind.what}" for kind in KINDS)


def names_in(given: Sequence[str]) -> tuple[str, ...]:
    """Names from options that may be repeated, and may have several between commas."""
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


def known_ways(given: Sequence[str]) -> tuple[str, ...]:
    names = names_in(given)
    for name in names:
        if name not in ways.NAMES:
            raise click.BadParameter(f"{name!r} is not a way; there are {', '.join(ways.NAMES)}")
    return names


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--quick", is_flag=True, help="Fewer cases, no repeats.")
@click.option("--record", is_flag=True, help="Of counts alone: record them as the baseline.")
@click.option(
    "--kinds",
    multiple=True,
    type=click.Choice([kind.name for kind in KINDS]),
    metavar="KIND",
    help="Of attacks alone: this kind; may be repeated. All without it.",
)
@click.option(
    "--planes",
    multiple=True,
    type=click.Choice(attacks.PLANES),
    default=attacks.PLANES,
    help="Of attacks alone: this data plane; may be repeated. Both without it.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 300),
    default=attacks.SECONDS,
    show_default=True,
    help="Of attacks alone: how long each lasts.",
)
@click.option(
    "--only",
    multiple=True,
    callback=lambda _context, _option, given: names_in(given),
    metavar="CASES",
    help="Of routers alone: these cases, such as rest-64-x16,rest-unary-* (see the first column), "
    "or those with a requirement: required.",
)
@click.option(
    "--ways",
    "names_of_ways",
    multiple=True,
    callback=lambda _context, _option, given: known_ways(given),
    metavar="WAYS",
    help=f"Of routers and streams alone: these ways, of {', '.join(ways.NAMES)}. All without it.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    help=f"Of routers alone.  [default: {routers.ROUNDS}, 1 with --quick]",
)
@click.option(
    "--profile",
    type=click.Choice([name for name in ways.NAMES if name in ways.PYTHON]),
    metavar="WAY",
    help="Of routers alone: show where this way's Python spends its time (py-spy), in a run more.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=load.ROOT / "build/benchmarks",
    help="Directory for JSON.",
)
def main(
    names: tuple[str, ...],
    quick: bool,
    record: bool,
    output: Path,
    only: tuple[str, ...],
    names_of_ways: tuple[str, ...],
    rounds: int | None,
    profile: str | None,
    **of_attacks: Any,
) -> None:
    """Measure pods, gateway, operator, routing, and overload. Needs go; `make kube-tools` too."""
    if record:
        if names != ("counts",):
            raise click.UsageError("--record is for counts alone: python -m benchmarks counts")
        counts.record()
        return
    if not names or not _ALONE.issuperset(names):
        load.build()
    of_routers = {"only": only, "names": names_of_ways, "rounds": rounds, "profiled": profile}
    of_some: dict[str, dict[str, Any]] = {
        "attacks": of_attacks,
        "routers": of_routers,
        "streams": {"names": names_of_ways},
    }
    for name in names or (name for name in BENCHMARKS if name not in _BY_HAND):
        more = of_some.get(name, {})
        BENCHMARKS[name](output, quick=quick, **more)


if __name__ == "__main__":
    main()
