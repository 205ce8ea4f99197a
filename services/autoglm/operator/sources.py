"""Fills the caches by a watch for each kind that the operator cannot do without.

Optional kinds are `optional`'s. Decides nothing about resources; reports by key what has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

from autoglm.api.labels import SERVICE_NAME
from autoglm.kube.key import Key
from autoglm.kube.kinds import CHILDREN, WARNING
from autoglm.kube.reflector import Query, Reflector
from autoglm.kube.store import Cache
from autoglm.kube.verbs import Kube
from autoglm.kube.watch import Selection, watch
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import OURS, WARNINGS, World
from autoglm.operator.optional import OptionalKinds

Watch = Reflector[bytes]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look. No namespaces: in all."""

    namespaces: tuple[str, ...]
    gateway_namespace: str
    gateway_service: str


@dataclass(frozen=True, slots=True)
class Ears:
    """Who is told."""

    changed: Callable[[Key], None]
    """Something that belongs to this resource."""
    resource_changed: Callable[[Key], None]
    """The resource itself."""


class Sources:
    """Everything that comes from the API server."""

    def __init__(
        self, kube: Kube, world: World, scope: Scope, ears: Ears, metrics: Metrics, rng: Random
    ) -> None:
        self._kube = kube
        self._world = world
        self._scope = scope
        self._ears = ears
        self._metrics = metrics
        self._rng = rng
        self._required: dict[str, list[Watch]] = {}
        self._optional = OptionalKinds(kube, world, metrics, self._watches, self._all_changed)
        for cache in world.caches():
            metrics.cached.labels(cache.kind.kind).set_function(partial(len, cache))

    async def fill(self, tasks: asyncio.TaskGroup) -> None:
        """Begin all watches; return when every kind that is needed has been listed once, and those
        that are optional too, as far as the API server has them and lists them soon."""
        world = self._world
        for kind in CHILDREN:
            self._begin(tasks, world.children[kind], OURS)
        self._begin(tasks, world.pods, OURS)
        self._begin(tasks, world.resources, (), self._ears.resource_changed)
        # Events explain and decide nothing, and gateways are polled every now and then anyway.
        for events in self._watches(world.warnings, WARNINGS):
            tasks.create_task(events.run(), name=f"watch {WARNING.kind}")
        tasks.create_task(self._gateway_watch().run(), name="watch EndpointSlice")
        self._optional.begin(tasks)
        for watches in self._required.values():
            for one in watches:
                await one.synced.wait()
        await self._optional.settled()

    def waiting_for(self) -> Mapping[str, str]:
        """Return the kinds that have yet to be listed, with what keeps them from it."""
        return {
            kind: next((w.problem for w in watches if w.problem), "not listed yet")
            for kind, watches in list(self._required.items())
            if not all(w.synced.is_set() for w in watches)
        }

    def _all_changed(self) -> None:
        for key in self._world.resources.owners():
            self._ears.changed(key)

    def _begin(
        self,
        tasks: asyncio.TaskGroup,
        cache: Cache,
        query: Query,
        changed: Callable[[Key], None] | None = None,
    ) -> None:
        watches = self._required[cache.kind.kind] = self._watches(cache, query, changed)
        for one in watches:
            tasks.create_task(one.run(), name=f"watch {cache.kind.kind}")

    def _watches(
        self,
        cache: Cache,
        query: Query = OURS,
        changed: Callable[[Key], None] | None = None,
        reported: Callable[[], None] = lambda: None,
    ) -> list[Watch]:
        """One watch for all namespaces, or one for each that the operator is limited to."""
        return [
            self._watch(cache, Selection(namespace, query), changed or self._ears.changed, reported)
            for namespace in self._scope.namespaces or ("",)
        ]

    def _gateway_watch(self) -> Watch:
        service = (("labelSelector", f"{SERVICE_NAME}={self._scope.gateway_service}"),)
        selection = Selection(self._scope.gateway_namespace, service)
        return self._watch(self._world.gateway_slices, selection, lambda _: None)

    def _watch(
        self,
        cache: Cache,
        selection: Selection,
        changed: Callable[[Key], None],
        reported: Callable[[], None] = lambda: None,
    ) -> Watch:
        return watch(self._kube, cache, selection, changed, self._metrics, self._rng, reported)
