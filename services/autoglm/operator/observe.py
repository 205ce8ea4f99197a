"""Everything the operator knows, and the part of it that one reconcile looks at. No requests.

Filled by watches, read by `reconcile`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoglm.api.labels import FIELD_MANAGER, MANAGED_BY
from autoglm.kube.key import Key
from autoglm.kube.kinds import (
    CHILDREN,
    ENDPOINT_SLICE,
    OPTIONAL_CHILDREN,
    POD,
    RESOURCE,
    WARNING,
    Kind,
)
from autoglm.kube.store import Cache, Head, own_key
from autoglm.operator.observed import Conflict, NoData, Observed, Raw, Refusal
from autoglm.operator.ownership.model_names import NameIndex

OURS = (("labelSelector", f"{MANAGED_BY}={FIELD_MANAGER}"),)
WARNINGS = (("fieldSelector", "type=Warning"),)
_MOST_WARNINGS = 50
# Deployment <name>-<revision>, ReplicaSet and Pod with the suffixes that Kubernetes appends.
_REVISION = r"-[0-9a-f]{8}"
_NAMES = {
    "Deployment": re.compile(rf"(.+){_REVISION}"),
    "ReplicaSet": re.compile(rf"(.+){_REVISION}-[a-z0-9]+"),
    "Pod": re.compile(rf"(.+){_REVISION}-[a-z0-9]+-[a-z0-9]+"),
    "HorizontalPodAutoscaler": re.compile(r"(.+)"),
}


def warned(head: Head) -> Key | None:
    """The resource that a Warning event is about, by the name of what it regards."""
    regarding = head.involved_object
    pattern = _NAMES.get(regarding.kind)
    match = pattern.fullmatch(regarding.name) if pattern else None
    return Key(regarding.namespace, match[1]) if match else None


def _children() -> dict[Kind, Cache]:
    return {kind: Cache(kind) for kind in (*CHILDREN, *OPTIONAL_CHILDREN)}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an earlier attempt left to tell."""

    conflicts: tuple[Conflict, ...] = ()
    refused: tuple[Refusal, ...] = ()


@dataclass(slots=True)
class World:
    """The caches, one for each kind."""

    resources: Cache = field(default_factory=lambda: Cache(RESOURCE, own_key))
    children: dict[Kind, Cache] = field(default_factory=_children)
    pods: Cache = field(default_factory=lambda: Cache(POD))
    warnings: Cache = field(default_factory=lambda: Cache(WARNING, warned))
    gateway_slices: Cache = field(default_factory=lambda: Cache(ENDPOINT_SLICE, own_key))
    optional_kinds: frozenset[Kind] = frozenset()
    """Those that can be used."""
    unavailable_kinds: Mapping[str, str] = field(default_factory=dict)
    """Those that the API server has and cannot list, with why."""
    names: NameIndex = field(default_factory=NameIndex)

    def caches(self) -> tuple[Cache, ...]:
        return (self.resources, *self.children.values(), self.pods, self.warnings)

    def slices(self) -> list[Raw]:
        cache = self.gateway_slices
        return [s for key in cache.owners() if (s := cache.get(key)) is not None]


def observe(
    world: World, key: Key, routable: Callable[[Key], frozenset[str] | NoData], last: Attempt
) -> Observed | None:
    """None when there is no such resource."""
    resource = world.resources.get(key)
    if resource is None:
        return None
    uid = resource["metadata"]["uid"]
    children = [child for cache in world.children.values() for child in cache.of(key)]
    return Observed(
        resource=resource,
        children=tuple(child for child in children if _is_owned(child, uid)),
        pods=tuple(world.pods.of(key)),
        warnings=tuple(sorted(world.warnings.of(key), key=_time)[-_MOST_WARNINGS:]),
        routable=routable(key),
        optional_kinds=frozenset(kind.kind for kind in world.optional_kinds),
        unavailable_kinds=world.unavailable_kinds,
        conflicts=tuple(c for c in last.conflicts if _stands(c, children)),
        refused=last.refused,
        lost_names=world.names.lost(key),
    )


def _is_owned(child: Raw, uid: str) -> bool:
    """Labels can be copied; only the owner reference says whose an object is."""
    owners: list[dict[str, Any]] = child["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == uid for owner in owners)


def _stands(conflict: Conflict, children: Iterable[Raw]) -> bool:
    """Whether the other applier still has a say in the object, or a new try would succeed."""
    return any(
        entry.get("manager") == conflict.manager and entry.get("operation") == "Apply"
        for child in children
        if (child["kind"], child["metadata"]["name"]) == (conflict.kind, conflict.name)
        for entry in child["metadata"].get("managedFields") or ()
    )


def _time(event: Raw) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
