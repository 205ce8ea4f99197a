"""Indexes model names: which names of a resource another resource serves. No I/O.

Updated by each change of a resource, so that a lookup costs the names of one resource, not of all.
The gateway decides by the same functions of `api.names`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoglm.api.names import (
    NO_RULES,
    NameRules,
    Seniority,
    declared_names,
    owner_of,
    seniority,
)
from autoglm.kube.kinds import Key
from autoglm.operator.types import LostName, Raw


@dataclass(frozen=True, slots=True)
class Claim:
    """The model names that a resource claims, and its seniority."""

    key: Key
    names: tuple[str, ...]
    created: str = ""

    @property
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def seniority(self) -> Seniority:
        return seniority(self.created, self.key.namespace, self.key.name)


def claim_of(resource: Raw | None) -> Claim | None:
    """Return the names that a resource declares, even if its spec is invalid; None for None."""
    if resource is None:
        return None
    metadata, model = resource["metadata"], _mapping(_mapping(resource.get("spec")).get("model"))
    adapters = [_mapping(adapter).get("name") for adapter in _list(model.get("adapters"))]
    served, aliases = model.get("servedName"), _list(model.get("aliases"))
    names = declared_names(
        metadata["name"],
        served if isinstance(served, str) else None,
        _texts(aliases),
        _texts(adapters),
    )
    key = Key(metadata["namespace"], metadata["name"])
    return Claim(key, names, str(metadata.get("creationTimestamp") or ""))


@dataclass(slots=True)
class NameIndex:
    """The claims of all resources, by name."""

    rules: NameRules = NO_RULES
    _claims: dict[Key, Claim] = field(default_factory=dict)
    _by_name: dict[str, dict[Key, Claim]] = field(default_factory=dict)

    def put(self, key: Key, claim: Claim | None) -> set[Key]:
        """Replace the claim of a resource, None if it was deleted; return the other resources that
        declare one of its names, if the claim has changed."""
        before = self._claims.pop(key, None)
        if claim is not None:
            self._claims[key] = claim
        if claim == before:
            return set()
        names = {*(before.names if before else ()), *(claim.names if claim else ())}
        for name in before.names if before else ():
            claims = self._by_name[name]
            del claims[key]
            if not claims:
                del self._by_name[name]
        if claim is not None:
            for name in claim.names:
                self._by_name.setdefault(name, {})[key] = claim
        return {other for name in names for other in self._by_name.get(name, ())} - {key}

    def lost(self, key: Key) -> tuple[LostName, ...]:
        """Return the declared names that are not routed to the resource, in its own order."""
        claim, lost = self._claims.get(key), list[LostName]()
        for name in claim.names if claim else ():
            if not self.rules.may_claim(key.namespace, name):
                lost.append(LostName(name))
                continue
            owner = owner_of(name, self._by_name[name].values(), self.rules)
            if owner is not None and owner.key != key:
                lost.append(LostName(name, owner.key))
        return tuple(lost)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(values: Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]
