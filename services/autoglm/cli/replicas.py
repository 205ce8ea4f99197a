"""Pods and warnings of a resource, as facts. Pure; called by `status_view` and `explain_view`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from autoglm.api.labels import DEPLOYMENT, REVISION
from autoglm.cli.kube import Look, Raw, is_ready
from autoglm.cli.remedies import remedy

RECENT_SECONDS = 3600.0
_MOST_WARNINGS = 6


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod."""

    name: str
    state: str
    """What kubectl calls its status."""
    is_ready: bool
    is_routable: bool | None
    """None where no gateway could be asked."""
    restarts: int
    age: float | None
    """Seconds."""
    node: str
    revision: str
    why: str = ""
    """What is wrong, in the words of kubelet, scheduler or engine."""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """A recent event of type Warning."""

    age: float
    times: int
    about: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Trouble:
    state: str
    why: str = ""
    exit_code: int | None = None


def replicas(resource: Raw, look: Look, now: float) -> tuple[Replica, ...]:
    """Those that are not ready first."""
    metadata = resource["metadata"]
    mine = [
        _replica(pod, look.routable, now)
        for pod in look.pods
        if pod["metadata"]["namespace"] == metadata["namespace"]
        and _labels(pod).get(DEPLOYMENT) == metadata["name"]
    ]
    return tuple(sorted(mine, key=lambda replica: (replica.is_ready, replica.name)))


def warned(resource: Raw, look: Look, now: float) -> tuple[Warned, ...]:
    """About the resource and what belongs to it, the latest first."""
    metadata = resource["metadata"]
    # Children are called NAME, NAME-pods or NAME-HASH, pods NAME-HASH-...
    of_it = re.compile(re.escape(metadata["name"]) + r"(-pods|-[0-9a-f]{8}(-.*)?)?")
    found = [
        _warned(event, now)
        for event in look.warnings
        if event["metadata"]["namespace"] == metadata["namespace"]
        and of_it.fullmatch(_about(event).get("name", ""))
    ]
    recent = [event for event in found if event.age <= RECENT_SECONDS]
    return tuple(sorted(recent, key=lambda event: event.age)[:_MOST_WARNINGS])


def seconds_since(timestamp: str | None, now: float) -> float | None:
    if not timestamp:
        return None
    return max(0.0, now - datetime.fromisoformat(timestamp).timestamp())


def _replica(pod: Raw, routable: frozenset[tuple[str, str]] | None, now: float) -> Replica:
    metadata = pod["metadata"]
    trouble = next(_troubles(pod), _Trouble(pod.get("status", {}).get("phase", "Unknown")))
    place = (metadata["namespace"], metadata["name"])
    return Replica(
        name=metadata["name"],
        state=trouble.state,
        is_ready=is_ready(pod),
        is_routable=None if routable is None else place in routable,
        restarts=sum(status.get("restartCount", 0) for status in _containers(pod)),
        age=seconds_since(metadata.get("creationTimestamp"), now),
        node=pod["spec"].get("nodeName", ""),
        revision=_labels(pod).get(REVISION, ""),
        why=trouble.why,
        remedy=remedy(trouble.state, trouble.exit_code),
    )


def _troubles(pod: Raw) -> Iterator[_Trouble]:
    """What keeps the pod from serving, the most telling first."""
    if "deletionTimestamp" in pod["metadata"]:
        yield _Trouble("Terminating")
    if reason := pod.get("status", {}).get("reason"):
        yield _Trouble(reason, pod["status"].get("message", ""))
    for status in _containers(pod):
        yield from _of_container(status)
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield _Trouble(condition.get("reason", "Unschedulable"), condition.get("message", ""))


def _of_container(status: Raw) -> Iterator[_Trouble]:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting, ended = state.get("waiting"), state.get("terminated")
    before = last.get("terminated") or {}
    if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        # Why it ended says more than that it is not started again yet.
        why = before.get("message") or waiting.get("message") or ""
        yield _Trouble(_cause(waiting["reason"], before), _line(why), before.get("exitCode"))
    elif ended and ended.get("exitCode"):
        reason = ended.get("reason", "Error")
        yield _Trouble(reason, _line(ended.get("message") or ""), ended["exitCode"])


def _cause(reason: str, before: Mapping[str, Any]) -> str:
    """The kernel's verdict counts more than that kubelet waits."""
    ended = before.get("reason", "")
    return str(ended) if reason == "CrashLoopBackOff" and ended == "OOMKilled" else reason


def _line(text: str) -> str:
    return " ".join(text.split())


def _containers(pod: Raw) -> Sequence[Raw]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _labels(pod: Raw) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def _about(event: Raw) -> Mapping[str, str]:
    """core/v1 and events.k8s.io/v1 have names of their own for it."""
    return event.get("involvedObject") or event.get("regarding") or {}


def _warned(event: Raw, now: float) -> Warned:
    series = event.get("series") or {}
    times = (
        *(series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")),
        event["metadata"].get("creationTimestamp"),
    )
    about = _about(event)
    return Warned(
        age=seconds_since(next((time for time in times if time), None), now) or 0.0,
        times=series.get("count") or event.get("count") or 1,
        about=f"{about.get('kind', '')}/{about.get('name', '')}",
        reason=event.get("reason", ""),
        message=_line(event.get("message") or event.get("note") or ""),
    )
