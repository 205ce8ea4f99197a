"""Derives endpoints and resources from a cluster's objects. No I/O.

Watches add objects one by one; `take_change` returns the difference since its last call, at the
cost of the objects changed. A pod is an endpoint if all EndpointSlices that name it report it as
ready and none as terminating, so a terminating pod is dropped whichever slice reports it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autoglm.api.names import NO_RULES, NameRules
from autoglm.gateway.endpoints.deployments import Directory, Resource, directory_of
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.endpoints.kubernetes_objects import Mention, Slice
from autoglm.kube.kinds import Key
from autoglm.kube.typed_store import TypedStore


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
    endpoints: dict[tuple[str, int], Endpoint] = {}
    for mention in sorted(usable):
        host, port = mention.host, mention.port
        url = f"grpc://[{host}]:{port}" if ":" in host else f"grpc://{host}:{port}"
        endpoint = Endpoint(url, "pod", host, port, origin=deployment, pod=mention.pod)
        endpoints[host, port] = endpoint
    return frozenset(endpoints.values())


class Cluster:
    """The state of all watched collections, with one store for each.

    Calls `on_event` after each list and each event of a watch.
    """

    def __init__(
        self, rules: NameRules = NO_RULES, on_event: Callable[[], None] = lambda: None
    ) -> None:
        self._rules = rules
        self._on_event = on_event
        self._stores: list[TypedStore[Slice] | TypedStore[Resource]] = []
        self._slices: dict[Key, dict[Key, Slice]] = {}
        self._resources: dict[Key, Resource] = {}
        self._endpoints: dict[Key, frozenset[Endpoint]] = {}
        self._touched: set[Key] = set()
        self._has_new_resources = True

    def slice_store(self) -> TypedStore[Slice]:
        """Add a store of EndpointSlices."""
        store = TypedStore[Slice](self._note_slice, self._on_event)
        self._stores.append(store)
        return store

    def resource_store(self) -> TypedStore[Resource]:
        """Add a store of AutoGLMDeployments."""
        store = TypedStore[Resource](self._note_resource, self._on_event)
        self._stores.append(store)
        return store

    def take_change(self) -> Change | None:
        """Return the change since the last call; None without one or while lists are missing."""
        if not all(store.is_listed for store in self._stores):
            return None
        gone: set[Endpoint] = set()
        come: set[Endpoint] = set()
        for deployment in self._touched:
            before = self._endpoints.pop(deployment, frozenset())
            after = frozenset[Endpoint]()
            if deployment in self._resources:
                after = endpoints_of(deployment, self._slices.get(deployment, {}).values())
            if after:
                self._endpoints[deployment] = after
            gone |= before - after
            come |= after - before
        self._touched = set()
        directory = None
        if self._has_new_resources:
            directory = directory_of(self._resources.values(), self._rules)
        self._has_new_resources = False
        if not gone and not come and directory is None:
            return None
        return Change(frozenset(gone), frozenset(come), directory)

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
