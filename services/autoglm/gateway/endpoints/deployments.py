"""AutoGLMDeployments as far as requests are concerned: which names they serve, under which rules.

Whom a model name belongs to when two resources declare it is decided by `api.names`. Pure; built
from Kubernetes or the local runtime's file, read by snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoglm.api.names import NO_RULES, NameRules, Seniority, owners_of, seniority
from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.safeguards import HedgePolicy, OutlierPolicy, RecoveryPolicy
from autoglm.gateway.request.prefix_cache import PrefixCache


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
    prefix_cache: PrefixCache | None = None
    """What `spec.tenancy` says."""


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
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def seniority(self) -> Seniority:
        """The smallest is the oldest; never equal for two resources."""
        return seniority(self.created, self.key.namespace, self.key.name)


@dataclass(frozen=True, slots=True)
class Directory:
    """All resources, and the one that each declared name belongs to."""

    resources: Mapping[Key, Resource] = field(default_factory=lambda: MappingProxyType({}))
    owners: Mapping[str, Resource] = field(default_factory=lambda: MappingProxyType({}))
    rules: NameRules = NO_RULES

    def may_serve(self, resource: Key | None, name: str) -> bool:
        """Whether a pod that lists a name may get its requests; pods of no resource always may."""
        return resource is None or self.rules.may_claim(resource.namespace, name)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A name that a resource declares and does not get."""

    loser: Key
    name: str
    owner: Key | None
    """None where the resource may not claim the name."""

    def __str__(self) -> str:
        if self.owner is None:
            return (
                f"{self.loser} does not serve {self.name!r}: its namespace may not claim that "
                "name; choose another, or allow it in the gateway's and the operator's "
                "model-name-rules"
            )
        return (
            f"{self.loser} does not serve {self.name!r}: the older {self.owner} does; "
            "choose another servedName or alias in one of them"
        )


def directory_of(resources: Iterable[Resource], rules: NameRules = NO_RULES) -> Directory:
    found = {resource.key: resource for resource in resources}
    return Directory(found, owners_of(found.values(), rules), rules)


def conflicts_in(directory: Directory) -> frozenset[Conflict]:
    return frozenset(
        Conflict(resource.key, name, owner)
        for resource in directory.resources.values()
        for name in resource.names
        if (owner := _owner(directory, resource, name)) != resource.key
    )


def _owner(directory: Directory, resource: Resource, name: str) -> Key | None:
    if not directory.may_serve(resource.key, name):
        return None
    return directory.owners[name].key
