"""AutoGLMDeployments as far as requests are concerned: which names they serve, under which rules.

Decides whom a model name belongs to when two resources declare it: the older one, everywhere and
always. Pure; built from Kubernetes or the local runtime's file, read by snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoglm.api.traffic import RoutingPolicy
from autoglm.gateway.safeguards import HedgePolicy, OutlierPolicy, RecoveryPolicy


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which resource."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What `spec.routing` says of requests; None leaves it to the gateway's own settings."""

    first_token_seconds: float | None = None
    chunk_seconds: float | None = None
    total_seconds: float | None = None
    attempts: int | None = None
    budget_ratio: float | None = None
    policy: RoutingPolicy | None = None
    slo_first_token_seconds: float | None = None
    recovery: RecoveryPolicy | None = None
    hedging: HedgePolicy | None = None
    outliers: OutlierPolicy | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """One AutoGLMDeployment. `names` begins with the model's own, then aliases and adapters."""

    key: Key
    created: str = ""
    """When, as the API server writes it, which sorts as text."""
    names: tuple[str, ...] = ()
    rules: Rules = Rules()
    state: str = ""
    """Why it may have no ready pod, in words for clients; empty where nothing is known."""
    retry_after: float = 1.0
    """When to ask again while it has none, in seconds."""

    @property
    def seniority(self) -> tuple[str, Key]:
        """The smallest is the oldest; never equal for two resources."""
        return (self.created, self.key)


@dataclass(frozen=True, slots=True)
class Directory:
    """All resources, and the one that each declared name belongs to."""

    resources: Mapping[Key, Resource] = field(default_factory=lambda: MappingProxyType({}))
    owners: Mapping[str, Resource] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, order=True)
class Conflict:
    """A name that a resource declares and does not get."""

    loser: Key
    name: str
    owner: Key

    def __str__(self) -> str:
        return (
            f"{self.loser} does not serve {self.name!r}: the older {self.owner} does; "
            "choose another servedName or alias in one of them"
        )


def directory_of(resources: Iterable[Resource]) -> Directory:
    by_age = sorted(resources, key=lambda resource: resource.seniority)
    owners: dict[str, Resource] = {}
    for resource in by_age:
        for name in resource.names:
            owners.setdefault(name, resource)
    return Directory({resource.key: resource for resource in by_age}, owners)


def conflicts_in(directory: Directory) -> frozenset[Conflict]:
    return frozenset(
        Conflict(resource.key, name, owner.key)
        for resource in directory.resources.values()
        for name in resource.names
        if (owner := directory.owners[name]).key != resource.key
    )
