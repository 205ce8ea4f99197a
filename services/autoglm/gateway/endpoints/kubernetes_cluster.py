"""Derives endpoints and resources from a cluster's objects. No I/O.

Watches add objects one by one; `take_change` returns the difference since its last call, at the
cost of the objects changed. A pod is an endpoint if all EndpointSlices that name it report it as
ready and none as terminating, so a terminating pod is dropped whichever slice reports it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from autoglm.api.names import NO_RULES, NameRules
from autoglm.gateway.endpoints.deployments import Directory, Key, Resource, directory_of
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.endpoints.kubernetes_objects import Mention, Slice

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the cluster; `directory` is None if no resource has changed."""

    gone: frozenset[Endpoint] = frozenset()
    come: frozenset[Endpoint] = frozenset()
    directory: Directory | None = None


def endpoints_of(deployment: Key, slices: Iterable[Slice]) -> frozenset[Endpoint]:
    """Return the usable pods of a deployment, in any order of slices and mentions."""
    by_pod: dict[str, list[Mention]] = {}
    for mention in (mention for found in slices for mention in found.mentions):
        by_pod.setdefault(mention.identity, []).append(mention)
    usable = [min(found) for found in by_pod.values() if all(m.is_usable for m in found)]
    # Two pods never have one address at a time; if slices report that, one of them is chosen.
    return frozenset({(m.host, m.port): _endpoint(deployment, m) for m in sorted(usable)}.values())


def _endpoint(deployment: Key, mention: Mention) -> Endpoint:
    host, port = mention.host, mention.port
    shown = f"[{host}]" if ":" in host else host
    url = f"grpc://{shown}:{port}"
    return Endpoint(url, "pod", host, port, origin=deployment, pod=mention.pod)


class Store(Generic[T]):
    """The facts of one collection by key; calls `on_change` for each changed one."""

    def __init__(self, on_change: Callable[[Key, T | None, T | None], None]) -> None:
        self._on_change = on_change
        self._facts: dict[Key, T] = {}
        self.has_list = False
        """Whether the collection was listed once."""

    def put(self, key: Key, fact: T | None) -> None:
        """Set an object's fact; None removes it."""
        before = self._facts.get(key)
        if before == fact:
            return
        if fact is None:
            del self._facts[key]
        else:
            self._facts[key] = fact
        self._on_change(key, before, fact)

    def replace(self, facts: Mapping[Key, T | None]) -> None:
        """Replace all objects; a fact of None keeps the previous one of an unreadable object."""
        for key in self._facts.keys() - facts.keys():
            self.put(key, None)
        for key, fact in facts.items():
            if fact is not None:
                self.put(key, fact)
        self.has_list = True


class Cluster:
    """The state of all watched collections, with one store for each."""

    def __init__(self, rules: NameRules = NO_RULES) -> None:
        self._rules = rules
        self._stores: list[Store[Slice] | Store[Resource]] = []
        self._slices: dict[Key, dict[Key, Slice]] = {}
        self._resources: dict[Key, Resource] = {}
        self._endpoints: dict[Key, frozenset[Endpoint]] = {}
        self._touched: set[Key] = set()
        self._has_new_resources = True

    def slice_store(self) -> Store[Slice]:
        """Add a store of EndpointSlices."""
        store: Store[Slice] = Store(self._note_slice)
        self._stores.append(store)
        return store

    def resource_store(self) -> Store[Resource]:
        """Add a store of AutoGLMDeployments."""
        store: Store[Resource] = Store(self._note_resource)
        self._stores.append(store)
        return store

    def take_change(self) -> Change | None:
        """Return the change since the last call; None without one or while lists are missing."""
        if not all(store.has_list for store in self._stores):
            return None
        gone: set[Endpoint] = set()
        come: set[Endpoint] = set()
        for deployment in self._touched:
            before, after = self._endpoints.get(deployment, frozenset()), self._wanted(deployment)
            gone |= before - after
            come |= after - before
            self._keep(deployment, after)
        self._touched = set()
        directory = None
        if self._has_new_resources:
            directory = directory_of(self._resources.values(), self._rules)
        self._has_new_resources = False
        if not gone and not come and directory is None:
            return None
        return Change(frozenset(gone), frozenset(come), directory)

    def _wanted(self, deployment: Key) -> frozenset[Endpoint]:
        if deployment not in self._resources:
            return frozenset()
        return endpoints_of(deployment, self._slices.get(deployment, {}).values())

    def _keep(self, deployment: Key, endpoints: frozenset[Endpoint]) -> None:
        if endpoints:
            self._endpoints[deployment] = endpoints
        else:
            self._endpoints.pop(deployment, None)

    def _note_slice(self, key: Key, before: Slice | None, after: Slice | None) -> None:
        if before is not None:
            mine = self._slices[before.deployment]
            del mine[key]
            if not mine:
                del self._slices[before.deployment]
            self._touched.add(before.deployment)
        if after is not None:
            self._slices.setdefault(after.deployment, {})[key] = after
            self._touched.add(after.deployment)

    def _note_resource(self, key: Key, before: Resource | None, after: Resource | None) -> None:
        self._has_new_resources = True
        if (before is None) != (after is None):
            self._touched.add(key)
        if after is None:
            del self._resources[key]
        else:
            self._resources[key] = after
