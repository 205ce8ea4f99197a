"""What pods say of themselves, as few facts. Pure; reads the API's objects, decides nothing."""

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
    """One pod and what `rollout` and `failures` want to know of it."""

    raw: Raw
    name: str
    revision: str
    is_ready: bool
    is_ending: bool
    is_serving: bool
    """Ready, and every gateway has it; ready is enough where no gateway can be asked."""


def present(raws: Iterable[Raw], routable: frozenset[str] | NoData, now: datetime) -> list[Pod]:
    """The pods that take up room: not those that are done, nor those long past their end."""
    return [_pod(raw, routable) for raw in raws if not _is_over(raw, now)]


def groups(deployments: Mapping[str, Raw], pods: Sequence[Pod]) -> list[Group]:
    """The revisions that there are, with their pods."""
    return [_group(name, deployment, pods) for name, deployment in deployments.items()]


def condition(raw: Raw, kind: str) -> Mapping[str, Any]:
    """A condition of any object; empty where there is none."""
    conditions = raw.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def containers(raw: Raw) -> Iterator[Mapping[str, Any]]:
    """States of all containers, in the order in which they start."""
    status = raw.get("status", {})
    for field in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(field) or ()


def instant(text: str) -> datetime:
    """Of the API's timestamps."""
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
    """Done, or due to be gone: a pod on a lost node may stay for ever in name."""
    if raw.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return True
    deadline = raw["metadata"].get("deletionTimestamp")
    return deadline is not None and instant(deadline) < now
