"""Input and output of a reconcile as frozen data. No I/O, no decisions.

`observe` returns ObservedObjects, `plan` computes a Plan from it, `apply` carries the Plan out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autoglm.kube.kinds import Key
from autoglm.operator.rollout import ProfileUser

# An object as the API server sends it. Never changed in place.
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObservedObjects:
    """A resource and all that belongs to it, as the caches hold it."""

    resource: Raw
    children: tuple[Raw, ...] = ()
    """Objects that the resource owns, of every kind that the operator creates."""
    pods: tuple[Raw, ...] = ()
    """Replicas."""
    loaders: tuple[Raw, ...] = ()
    """Pods of Jobs that fill the cache."""
    progress: Progress | None = None
    """What the running one of these reports."""
    start: str = ""
    """What the start of a replica does, in its own words: `load 3.2 GB`; empty if not known."""
    warnings: tuple[Raw, ...] = ()
    """Recent events of type Warning on the resource's pods, ReplicaSets, Deployments and HPA."""
    routable: frozenset[str] | None = None
    """Names of the pods that every gateway has in its pool; None if no gateway responded."""
    profile: Raw | None = None
    """The AutoGLMProfile that the resource names; None without one, or if it does not exist."""
    profile_users: tuple[ProfileUser, ...] = ()
    """The resources that name the same profile, this one among them."""
    optional_kinds: frozenset[str] = frozenset()
    """PodMonitor, ScaledObject and AutoGLMProfile, as far as they can be used."""
    unavailable_kinds: Mapping[str, str] = field(default_factory=dict)
    """Those that the API server serves but cannot list, with the error."""
    conflicts: tuple[Conflict, ...] = ()
    """Conflicts with other field managers in the last reconcile."""
    reverted: tuple[Conflict, ...] = ()
    """Fields that other controllers keep reverting."""
    rejected: tuple[Rejection, ...] = ()
    """Children that the API server rejected in the last reconcile for any other reason."""
    lost_names: tuple[LostName, ...] = ()
    """Model names that the resource declares and that are not routed to it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a download, in bytes and bytes a second."""

    done: int
    total: int
    rate: int

    def __str__(self) -> str:
        done, total, rate = self.done / 1e9, self.total / 1e9, self.rate / 1e6
        return f"{done:.1f} of {total:.1f} GB at {rate:.1f} MB/s"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field of a child that another field manager owns."""

    kind: str
    name: str
    manager: str
    field: str
    is_reverted: bool = False
    """It is reverted repeatedly; manager and field are empty where they are unknown."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A child that the API server rejected: invalid, forbidden, over a quota."""

    kind: str
    name: str
    message: str
    """The message of the API server."""

    @property
    def blocks_pods(self) -> bool:
        """Return whether no write may start a pod while it lasts: the pod would run without its
        network policy, or with another account or other settings."""
        return self.kind in ("ConfigMap", "NetworkPolicy", "Service", "ServiceAccount")


@dataclass(frozen=True, slots=True)
class LostName:
    """A model name that a resource declares and that gateways do not route to it."""

    name: str
    owner: Key | None = None
    """The older resource that serves it; None where the namespace may not claim it."""


@dataclass(frozen=True, slots=True)
class Ref:
    """An object to delete, with its uid as a precondition."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a resource, as `kubectl describe` shows it."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes of a reconcile, in this order. Empty if observed and desired state agree."""

    apply: tuple[Raw, ...] = ()
    """Complete bodies for server-side apply, with owner references."""
    delete: tuple[Ref, ...] = ()
    status: Raw | None = None
    """The complete status to write; None if it is unchanged."""
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds until the next reconcile, unless a change triggers one before."""
