"""What one reconcile sees and what it decides, as frozen data. No I/O, no decisions.

`observe` fills in Observed, `plan` turns it into a Plan, `apply` carries that out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from autoglm.kube.key import Key
from autoglm.operator.ownership.claims import Installation

# An object as the API server sends it. Never changed in place.
Raw = Mapping[str, Any]


class NoData:
    """Nobody could be asked; not the same as an empty answer."""


NO_DATA: Final = NoData()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was installed with, as far as children depend on it."""

    inference_image: str
    echo_image: str
    image_pull_policy: str = "IfNotPresent"
    allow_host_path: bool = False
    """Whether spec.model.cache may be a directory of the node: whoever may write a resource may
    then read and write any of it."""
    gateway_namespace: str = "autoglm-system"
    monitoring_namespace: str = "monitoring"
    tracing_endpoint: str = ""
    """Where replicas send spans when the resource says nothing."""
    prometheus_url: str = ""
    """Where KEDA asks for metrics; empty is the Prometheus operator's Service in the monitoring
    namespace."""
    gateway_url: str = ""
    """Where users reach the gateway; shown as status.url."""
    installation: Installation = Installation()
    """Whose claim the children carry."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at a resource and all that belongs to it."""

    resource: Raw
    children: tuple[Raw, ...] = ()
    """Objects owned by the resource, of every kind that the operator makes."""
    pods: tuple[Raw, ...] = ()
    warnings: tuple[Raw, ...] = ()
    """Recent events of type Warning on the resource's pods, ReplicaSets, Deployments and HPA."""
    routable: frozenset[str] | NoData = NO_DATA
    """Names of the pods that every gateway has in its pool."""
    optional_kinds: frozenset[str] = frozenset()
    """Of PodMonitor and ScaledObject, those that can be used."""
    unavailable_kinds: Mapping[str, str] = field(default_factory=dict)
    """Of the same, those that the API server has and cannot list, with why."""
    conflicts: tuple[Conflict, ...] = ()
    """What other appliers refused us in the last attempt."""
    fought: tuple[Conflict, ...] = ()
    """What others keep changing back."""
    refused: tuple[Refusal, ...] = ()
    """What the API server refused in the last attempt for any other reason."""
    lost_names: tuple[LostName, ...] = ()
    """Model names that the resource declares and does not get."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field of a child that another applier owns."""

    kind: str
    name: str
    manager: str
    field: str
    is_fought: bool = False
    """It is changed back again and again; manager and field are empty where they are unknown."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A child that the API server would not take: invalid, forbidden, over a quota."""

    kind: str
    name: str
    message: str
    """The API server's own words."""


@dataclass(frozen=True, slots=True)
class LostName:
    """A model name that a resource declares and that gateways do not route to it."""

    name: str
    owner: Key | None = None
    """The older resource that has it; None where the namespace may not claim it."""


@dataclass(frozen=True, slots=True)
class Ref:
    """An object to delete. `uid` is a precondition."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Event:
    """One line for `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written, in this order. Empty when all is as it should be."""

    apply: tuple[Raw, ...] = ()
    """Whole bodies for server-side apply, owner references included."""
    delete: tuple[Ref, ...] = ()
    status: Raw | None = None
    """The whole status to write; None where it is so already."""
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds until the next look, if nothing changes before."""
