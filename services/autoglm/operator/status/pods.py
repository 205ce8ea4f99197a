"""Reads pods and Deployments into the few values that rollouts and conditions need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from autoglm.api.labels import REVISION
from autoglm.operator.observed import NoData, Raw
from autoglm.operator.rollout import Group


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod, with the values that `rollout` and `failures` read."""

    raw: Raw
    name: str
    revision: str
    is_ready: bool
    is_ending: bool
    is_serving: bool
    """Ready, and in the pool of every gateway; ready is enough where no gateway responds."""


def present(raws: Iterable[Raw], routable: frozenset[str] | NoData, now: datetime) -> list[Pod]:
    """Return the pods that occupy resources: neither completed ones nor those past their
    termination."""
    return [_pod(raw, routable) for raw in raws if not _is_over(raw, now)]


def groups(deployments: Mapping[str, Raw], pods: Sequence[Pod]) -> list[Group]:
    """Return the existing revisions, with the numbers of their pods."""
    return [_group(name, deployment, pods) for name, deployment in deployments.items()]


def condition(raw: Raw, kind: str) -> Mapping[str, Any]:
    """Return a condition of any object; empty if it has none of that type."""
    conditions = raw.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def containers(raw: Raw) -> Iterator[Mapping[str, Any]]:
    """Yield the statuses of all containers, in the order in which they start."""
    status = raw.get("status", {})
    for field in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(field) or ()


def instant(text: str) -> datetime:
    """Parse a timestamp of the Kubernetes API."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def _group(revision: str, deployment: Raw, pods: Sequence[Pod]) -> Group:
    own = [pod for pod in pods if pod.revision == revision]
    return Group(
        revision=revision,
        replicas=deployment.get("spec", {}).get("replicas", 1),
        present=len(own),
        ready=sum(pod.is_ready for pod in own),
        serving=sum(pod.is_serving for pod in own),
    )


def _pod(raw: Raw, routable: frozenset[str] | NoData) -> Pod:
    metadata = raw["metadata"]
    revision = str(metadata.get("labels", {}).get(REVISION, ""))
    is_ending = "deletionTimestamp" in metadata
    is_ready = condition(raw, "Ready").get("status") == "True" and not is_ending
    known = isinstance(routable, NoData) or metadata["name"] in routable
    return Pod(raw, metadata["name"], revision, is_ready, is_ending, is_ready and known)


def _is_over(raw: Raw, now: datetime) -> bool:
    """Return whether a pod is completed, or past its termination: the pod of a lost node may stay
    for ever."""
    if raw.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return True
    deadline = raw["metadata"].get("deletionTimestamp")
    return deadline is not None and instant(deadline) < now
