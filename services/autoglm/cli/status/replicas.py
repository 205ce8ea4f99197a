"""Pods and warning events of a resource. Pure; called by `view` and `explain_view`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from autoglm.api.labels import DEPLOYMENT, REVISION
from autoglm.cli.kube import ClusterState, Raw, is_ready
from autoglm.cli.status.remedies import remedy
from autoglm.operator.status.pods import containers, failures, present

RECENT_SECONDS = 3600.0
_MOST_WARNINGS = 6


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod."""

    name: str
    state: str
    """State as `kubectl get pods` shows it."""
    is_ready: bool
    is_routable: bool | None
    """Whether all gateways have it in their pools; None if no gateway responded."""
    restarts: int
    age: float | None
    """Seconds."""
    node: str
    revision: str
    why: str = ""
    """Reason and message of kubelet, scheduler or engine."""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """A recent event of type Warning."""

    age: float
    count: int
    object: str
    reason: str
    message: str


def replicas(resource: Raw, observed: ClusterState, now: float) -> tuple[Replica, ...]:
    """Return the replicas of a resource, those that are not ready first."""
    metadata = resource["metadata"]
    mine = [
        pod
        for pod in observed.pods
        if pod["metadata"]["namespace"] == metadata["namespace"]
        and _labels(pod).get(DEPLOYMENT) == metadata["name"]
    ]
    about = [
        event
        for event in observed.warnings
        if event["metadata"]["namespace"] == metadata["namespace"]
    ]
    # The operator's own functions, so that both report the same failures.
    pods = present(mine, None, datetime.fromtimestamp(now, UTC))
    failed = {failure.pod: failure for failure in failures(pods, about)}
    found: list[Replica] = []
    for pod in mine:
        name = pod["metadata"]["name"]
        place, failure = (metadata["namespace"], name), failed.get(name)
        replica = Replica(
            name=name,
            state=_state(pod),
            is_ready=is_ready(pod),
            is_routable=None if observed.routable is None else place in observed.routable,
            restarts=sum(status.get("restartCount", 0) for status in containers(pod)),
            age=seconds_since(pod["metadata"].get("creationTimestamp"), now),
            node=pod["spec"].get("nodeName", ""),
            revision=_labels(pod).get(REVISION, ""),
            why=f"{failure.reason}: {failure.message}" if failure else "",
            remedy=remedy(failure.reason, failure.exit_code, failure.message) if failure else "",
        )
        found.append(replica)
    return tuple(sorted(found, key=lambda replica: (replica.is_ready, replica.name)))


def warning_events(resource: Raw, observed: ClusterState, now: float) -> tuple[WarningEvent, ...]:
    """Return recent warning events of a resource and its children, the latest first."""
    metadata = resource["metadata"]
    # Children are named NAME, NAME-pods or NAME-HASH, pods NAME-HASH-...
    own = re.compile(re.escape(metadata["name"]) + r"(-pods|-[0-9a-f]{8}(-.*)?)?")
    recent: list[WarningEvent] = []
    for event in observed.warnings:
        # The field differs in core/v1 and events.k8s.io/v1.
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event["metadata"]["namespace"] != metadata["namespace"]:
            continue
        if not own.fullmatch(about.get("name", "")):
            continue
        series = event.get("series") or {}
        time = (
            series.get("lastObservedTime")
            or event.get("lastTimestamp")
            or event.get("eventTime")
            or event["metadata"].get("creationTimestamp")
        )
        if (age := seconds_since(time, now) or 0.0) <= RECENT_SECONDS:
            warning = WarningEvent(
                age=age,
                count=series.get("count") or event.get("count") or 1,
                object=f"{about.get('kind', '')}/{about.get('name', '')}",
                reason=event.get("reason", ""),
                message=" ".join((event.get("message") or event.get("note") or "").split()),
            )
            recent.append(warning)
    return tuple(sorted(recent, key=lambda event: event.age)[:_MOST_WARNINGS])


def seconds_since(timestamp: str | None, now: float) -> float | None:
    if not timestamp:
        return None
    return max(0.0, now - datetime.fromisoformat(timestamp).timestamp())


def _state(pod: Raw) -> str:
    """Return the state of a pod as `kubectl get pods` shows it."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for status in containers(pod):
        for state in (status.get("state") or {}).values():
            if reason := state.get("reason"):
                return str(reason)
    status = pod.get("status", {})
    return str(status.get("reason") or status.get("phase", "Unknown"))


def _labels(pod: Raw) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}
