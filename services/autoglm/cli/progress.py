"""Follows a resource's status for `autoglm deploy --wait`, and decides when to stop.

The clock and the reading of the resource are parameters; there is no I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a resource, in one line."""

    line: str
    is_ready: bool = False
    is_hopeless: bool = False


def follow(
    poll: Callable[[], Progress],
    until: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Progress]:
    """Yield each change of the progress, until the resource is ready, hopeless or out of time."""
    last = None
    while True:
        progress = poll()
        if progress != last:
            yield progress
        last = progress
        if progress.is_ready or progress.is_hopeless or now() >= until:
            return
        sleep(min(_POLL_SECONDS, max(0.0, until - now())))


def progress_of(resource: Mapping[str, Any]) -> Progress:
    """Return the progress that a resource's status reports for its current spec."""
    status, generation = resource.get("status") or {}, resource["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) < generation:
        return Progress(
            "waiting for the operator; check that it is installed and watches this namespace"
        )
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    ready = conditions.get("Ready", {})
    counts = f"{status.get('readyReplicas', 0)} of {resource['spec'].get('replicas', 1)} ready"
    line = f"{status.get('phase') or 'Pending'}, {counts}"
    if ready.get("status") == "True":
        return Progress(f"{line}{_at(status)}", is_ready=True)
    why = f": {ready['reason']}: {ready.get('message', '')}" if ready.get("reason") else ""
    return Progress(line + why.rstrip(": "), is_hopeless=ready.get("reason") == "InvalidSpec")


def _at(status: Mapping[str, Any]) -> str:
    return f" at {status['url']}" if status.get("url") else ""
