"""The parts of AutoGLMDeployments that requests need: the served names and the rules. Pure.

`api.names` decides which of two resources owns a name that both declare. Built from Kubernetes or
the local runtime's file, used by snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoglm.api.names import NO_RULES, NameRules, Seniority, owners_of, seniority
from autoglm.api.schema import Part
from autoglm.api.spec.traffic import Routing, Tenancy
from autoglm.kube.kinds import Key


class Rules(Part):
    """The parts of `spec` that requests follow; None applies the gateway's own setting."""

    routing: Routing = Routing()
    tenancy: Tenancy = Tenancy()


@dataclass(frozen=True, slots=True)
class Resource:
    """One AutoGLMDeployment. `names`: the model's own first, then aliases and adapters."""

    key: Key
    created: str = ""
    """The creation timestamp as the API server writes it, which sorts as text."""
    names: tuple[str, ...] = ()
    rules: Rules = Rules()
    state: str = ""
    """Why it may have no ready pod, as a message for clients; empty if unknown."""
    retry_after: float = 1.0
    """Retry-After while it has no ready pod, in seconds."""

    @property
    def namespace(self) -> str:
        """Return the resource's namespace."""
        return self.key.namespace

    @property
    def seniority(self) -> Seniority:
        """Return the order by age, the oldest first; never equal for two resources."""
        return seniority(self.created, self.key.namespace, self.key.name)


@dataclass(frozen=True, slots=True)
class Directory:
    """All resources, and the owner of each declared name."""

    resources: Mapping[Key, Resource] = field(default_factory=lambda: MappingProxyType({}))
    owners: Mapping[str, Resource] = field(default_factory=lambda: MappingProxyType({}))
    rules: NameRules = NO_RULES

    def may_serve(self, resource: Key | None, name: str) -> bool:
        """Return whether pods of the resource may serve the name; those of none always may."""
        return resource is None or self.rules.may_claim(resource.namespace, name)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A name that a resource declares but does not own."""

    loser: Key
    name: str
    owner: Key | None
    """None if the resource's namespace may not claim the name."""

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
    """Return the directory of the resources."""
    found = {resource.key: resource for resource in resources}
    return Directory(found, owners_of(found.values(), rules), rules)


def conflicts_in(directory: Directory) -> frozenset[Conflict]:
    """Return the names that resources declare but do not own."""
    conflicts = set()
    for resource in directory.resources.values():
        for name in resource.names:
            may_serve = directory.may_serve(resource.key, name)
            owner = directory.owners[name].key if may_serve else None
            if owner != resource.key:
                conflicts.add(Conflict(resource.key, name, owner))
    return frozenset(conflicts)
