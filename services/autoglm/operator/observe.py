"""The caches, and the part of them that one reconcile reads. No requests.

Filled by `watches`, read by `reconcile`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from autoglm.api.labels import COMPONENT, FIELD_MANAGER, LOADER, MANAGED_BY
from autoglm.api.rules import at
from autoglm.kube.kinds import (
    CHILDREN,
    ENDPOINT_SLICE,
    OPTIONAL_CHILDREN,
    POD,
    PROFILE,
    RESOURCE,
    WARNING,
    Key,
    Kind,
)
from autoglm.kube.store import Cache, Head, own_key
from autoglm.operator.ownership.model_names import NameIndex
from autoglm.operator.profiles import ProfileIndex
from autoglm.operator.types import Conflict, ObservedObjects, Progress, Raw, Rejection

MANAGED = (("labelSelector", f"{MANAGED_BY}={FIELD_MANAGER}"),)
WARNINGS = (("fieldSelector", "type=Warning"),)
_MOST_WARNINGS = 50
# Deployment <name>-<revision>, ReplicaSet, Job and Pod with the suffixes that Kubernetes appends.
_REVISION = r"-[0-9a-f]{8}"
_LOADER = r"-load-[0-9a-f]{5}"
_NAMES = {
    "Deployment": re.compile(rf"(.+){_REVISION}"),
    "ReplicaSet": re.compile(rf"(.+){_REVISION}-[a-z0-9]+"),
    "Pod": re.compile(rf"(.+)(?:{_REVISION}-[a-z0-9]+|{_LOADER})-[a-z0-9]+"),
    "Job": re.compile(rf"(.+){_LOADER}"),
    "PersistentVolumeClaim": re.compile(r"(.+)-weights"),
    "HorizontalPodAutoscaler": re.compile(r"(.+)"),
}


def warning_owner(head: Head) -> Key | None:
    """Return the resource that a Warning event concerns, by the name of the regarded object."""
    regarding = head.involved_object
    pattern = _NAMES.get(regarding.kind)
    match = pattern.fullmatch(regarding.name) if pattern else None
    return Key(regarding.namespace, match[1]) if match else None


@dataclass(frozen=True, slots=True)
class ApplyFailures:
    """Conflicts and rejections of the last reconcile."""

    conflicts: tuple[Conflict, ...] = ()
    rejected: tuple[Rejection, ...] = ()


@dataclass(slots=True)
class Caches:
    """One cache for each kind, and the indexes of model names and profiles."""

    resources: Cache = field(default_factory=lambda: Cache(RESOURCE, own_key))
    children: dict[Kind, Cache] = field(
        default_factory=lambda: {kind: Cache(kind) for kind in (*CHILDREN, *OPTIONAL_CHILDREN)}
    )
    pods: Cache = field(default_factory=lambda: Cache(POD))
    warnings: Cache = field(default_factory=lambda: Cache(WARNING, warning_owner))
    profiles: Cache = field(default_factory=lambda: Cache(PROFILE, own_key))
    gateway_slices: Cache = field(default_factory=lambda: Cache(ENDPOINT_SLICE, own_key))
    optional_kinds: frozenset[Kind] = frozenset()
    """Optional kinds that can be used."""
    unavailable_kinds: Mapping[str, str] = field(default_factory=dict)
    """Optional kinds that the API server serves but cannot list, with the error."""
    names: NameIndex = field(default_factory=NameIndex)
    profile_users: ProfileIndex = field(default_factory=ProfileIndex)

    def by_kind(self) -> tuple[Cache, ...]:
        """Return the caches whose objects belong to resources, or are named by them."""
        return (self.resources, *self.children.values(), self.pods, self.warnings, self.profiles)

    def profile(self, name: str) -> Raw | None:
        return self.profiles.get(Key("", name))

    def slices(self) -> list[Raw]:
        """Return the EndpointSlices of the gateway."""
        cache = self.gateway_slices
        return [s for key in cache.owners() if (s := cache.get(key)) is not None]


class ReportedProgress(Protocol):
    """Source of the progress that pods report."""

    def loader(self, key: Key) -> Progress | None:
        """Return the progress of the loader of a resource."""

    def start(self, key: Key) -> str:
        """Return what the start of a replica does; empty if none starts, or not known."""


def observe(
    caches: Caches,
    key: Key,
    routable: Callable[[Key], frozenset[str] | None],
    last: ApplyFailures,
    progress: ReportedProgress | None = None,
) -> ObservedObjects | None:
    """Return a resource and everything that belongs to it; None if the resource does not exist."""
    resource = caches.resources.get(key)
    if resource is None:
        return None
    children = [child for cache in caches.children.values() for child in cache.of(key)]
    # Labels can be copied, so only owner references count.
    uid = resource["metadata"]["uid"]
    owned = (
        child
        for child in children
        if any(o.get("uid") == uid for o in child["metadata"].get("ownerReferences") or ())
    )
    name = at(resource, "spec.profile.name")
    pods = caches.pods.of(key)
    return ObservedObjects(
        resource=resource,
        profile=caches.profile(name) if isinstance(name, str) else None,
        profile_users=caches.profile_users.users(name) if isinstance(name, str) else (),
        children=tuple(owned),
        pods=tuple(pod for pod in pods if not _is_loader(pod)),
        loaders=tuple(filter(_is_loader, pods)),
        progress=progress.loader(key) if progress else None,
        start=progress.start(key) if progress else "",
        warnings=tuple(sorted(caches.warnings.of(key), key=_last_time)[-_MOST_WARNINGS:]),
        routable=routable(key),
        optional_kinds=frozenset(kind.kind for kind in caches.optional_kinds),
        unavailable_kinds=caches.unavailable_kinds,
        conflicts=tuple(c for c in last.conflicts if _is_current(c, children)),
        rejected=last.rejected,
        lost_names=caches.names.lost(key),
    )


def _is_loader(pod: Raw) -> bool:
    return (pod["metadata"].get("labels") or {}).get(COMPONENT) == LOADER


def _is_current(conflict: Conflict, children: Iterable[Raw]) -> bool:
    """Return whether the other field manager still manages the object by apply."""
    return any(
        entry.get("manager") == conflict.manager and entry.get("operation") == "Apply"
        for child in children
        if (child["kind"], child["metadata"]["name"]) == (conflict.kind, conflict.name)
        for entry in child["metadata"].get("managedFields") or ()
    )


def _last_time(event: Raw) -> str:
    """Return when an event occurred last."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
