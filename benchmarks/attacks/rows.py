"""A row of the table, and whether an attack cost others their requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from benchmarks.attacks.attacker import Seen
from benchmarks.attacks.kinds import Kind
from benchmarks.neighbour import Outcome
from benchmarks.report import Row

COLUMNS = (
    *("kind", "plane", "wire", "others", "failed", "p50 ms", "under", "p99 ms", "under attack"),
    *("p99 ratio", "MB before", "peak", "after", "verdict", "the attacker saw", "first error"),
)
HELD, FAILED = "held", "failed"
# Rows that may fail, since grpcio's server has no setting for them: (kind, plane) to the issue.
UPSTREAM = {
    # The cap is on the work of one read; no number of resets ends a connection.
    ("rapid-reset", "embedded"): "https://github.com/grpc/grpc/pull/34639",
}
_SHOWN_STATUSES = 20


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes of the gateway with its Envoy."""

    before: float
    peak: float
    after: float


@dataclass(frozen=True, slots=True)
class Result:
    """One kind on one plane: the others' requests without the attack, under it and after it."""

    kind: Kind
    plane: str
    quiet: Sequence[Outcome]
    attacked: Sequence[Outcome]
    after: Sequence[Outcome]
    seen: Seen
    memory: Memory
    has_ended: bool = False
    """Whether the gateway's process ended."""


def row(result: Result) -> Row:
    """Return the row of `COLUMNS`, with all statuses that the attacker saw."""
    (quiet50, quiet99), (p50, p99) = _cuts(result.quiet), _cuts(result.attacked)
    return {
        "kind": result.kind.name,
        "plane": result.plane,
        "wire": result.kind.wire,
        "others": len(result.attacked),
        "failed": sum(one.is_failed for one in result.attacked),
        "failed after": sum(one.is_failed for one in result.after),
        "p50 ms": quiet50,
        "under": p50,
        "p99 ms": quiet99,
        "under attack": p99,
        "p99 ratio": p99 / quiet99 if quiet99 else float("nan"),
        "MB before": result.memory.before,
        "peak": result.memory.peak,
        "after": result.memory.after,
        "verdict": verdict(result),
        "the attacker saw": saw(result.seen),
        "first error": _first_error(result),
        "statuses": str(dict(sorted(result.seen.statuses.items()))),
        "attacker sent MB": result.seen.sent_bytes / 1e6,
    }


def verdict(result: Result) -> str:
    """Return `HELD`, `FAILED`, or the issue of grpcio that a failure is listed with."""
    failed = any(one.is_failed for one in (*result.attacked, *result.after))
    if not failed and not result.has_ended:
        return HELD
    return UPSTREAM.get((result.kind.name, result.plane), FAILED)


def saw(seen: Seen) -> str:
    """Return statuses by number, and when the server ended connections."""
    most = Counter(seen.statuses).most_common(_SHOWN_STATUSES)
    parts = [f"{status} x {count}" if count > 1 else status for status, count in most]
    if seen.ended:
        times = sorted(seen.ended)
        span = f"{times[0]:.1f}" + (f" to {times[-1]:.1f}" if len(times) > 1 else "")
        parts.append(f"{len(times)} of {seen.connections} ended after {span} s")
    elif seen.connections:
        parts.append(f"{seen.connections} open to the end")
    if seen.rejected:
        parts.append(f"{seen.rejected} not opened")
    return ", ".join(parts)


def _first_error(result: Result) -> str:
    named = {"": result.attacked, "after: ": result.after}
    errors = (label + one.status for label, some in named.items() for one in some if one.is_failed)
    first = next(errors, "")
    return f"the gateway ended; {first}" if result.has_ended else first


def _cuts(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds, of failed requests too."""
    seconds = [one.seconds for one in outcomes]
    if len(seconds) < 2:
        return 0.0, 0.0
    cuts = quantiles(seconds, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[98]
