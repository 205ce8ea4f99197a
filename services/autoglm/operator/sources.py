"""Fills the caches by a watch for each kind; optional kinds from when on the API server has them.

Decides nothing about resources; tells by key what has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

import msgspec

from autoglm.api.labels import SERVICE_NAME
from autoglm.operator.cache import Cache
from autoglm.operator.kinds import CHILDREN, OPTIONAL_CHILDREN, Kind
from autoglm.operator.kube import Kube
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import OURS, WARNINGS, World
from autoglm.operator.observed import Key
from autoglm.operator.transport import Refused, Unreachable
from autoglm.operator.watch import Selection, Watch

_DISCOVERY_SECONDS = 60.0
_NOT_FOUND = 404


class _Served(msgspec.Struct):
    """Of an APIResourceList, what is looked at."""

    class Resource(msgspec.Struct):
        kind: str

    resources: list[Resource] = []


_served = msgspec.json.Decoder(_Served)


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
        self._optional: dict[Kind, list[asyncio.Task[None]]] = {}
        for cache in world.caches():
            metrics.cached.labels(cache.kind.kind).set_function(partial(len, cache))

    async def fill(self, tasks: asyncio.TaskGroup) -> None:
        """Begins all watches; returns when every cache has been filled once."""
        world = self._world
        watches = [
            watch
            for cache in (*(world.children[kind] for kind in CHILDREN), world.pods)
            for watch in self._begin(tasks, cache, OURS)[0]
        ]
        watches += self._begin(tasks, world.warnings, WARNINGS)[0]
        watches += self._begin(tasks, world.resources, (), self._ears.resource_changed)[0]
        tasks.create_task(self._gateway_watch().run(), name="watch EndpointSlice")
        for watch in watches:
            await watch.synced.wait()
        await self._look_for_optional(tasks)

    async def discover(self, tasks: asyncio.TaskGroup) -> None:
        """Watches optional kinds from when on the API server has them. Until cancelled."""
        while True:
            await asyncio.sleep(_DISCOVERY_SECONDS)
            await self._look_for_optional(tasks)

    async def _look_for_optional(self, tasks: asyncio.TaskGroup) -> None:
        for kind in OPTIONAL_CHILDREN:
            served = await self._serves(kind)
            if served and kind not in self._optional:
                watches, self._optional[kind] = self._begin(tasks, self._world.children[kind], OURS)
                for watch in watches:
                    await watch.synced.wait()
            elif served is False:
                for task in self._optional.pop(kind, ()):
                    task.cancel()
        known = frozenset(self._optional)
        if known != self._world.optional_kinds:
            self._world.optional_kinds = known
            for key in self._world.resources.owners():
                self._ears.changed(key)

    async def _serves(self, kind: Kind) -> bool | None:
        """None when nobody can tell now."""
        try:
            answer = await self._kube.get(f"/apis/{kind.api_version}")
        except Refused as error:
            return False if error.status == _NOT_FOUND else None
        except Unreachable:
            return None
        return any(r.kind == kind.kind for r in _served.decode(answer).resources)

    def _begin(
        self,
        tasks: asyncio.TaskGroup,
        cache: Cache,
        query: tuple[tuple[str, str], ...],
        changed: Callable[[Key], None] | None = None,
    ) -> tuple[list[Watch], list[asyncio.Task[None]]]:
        """One watch for all namespaces, or one for each that was asked for."""
        watches = [
            self._watch(cache, Selection(namespace, query), changed or self._ears.changed)
            for namespace in self._scope.namespaces or ("",)
        ]
        name = f"watch {cache.kind.kind}"
        return watches, [tasks.create_task(watch.run(), name=name) for watch in watches]

    def _gateway_watch(self) -> Watch:
        service = (("labelSelector", f"{SERVICE_NAME}={self._scope.gateway_service}"),)
        selection = Selection(self._scope.gateway_namespace, service)
        # The gateways are asked every now and then anyway.
        return self._watch(self._world.gateway_slices, selection, lambda _: None)

    def _watch(self, cache: Cache, selection: Selection, changed: Callable[[Key], None]) -> Watch:
        return Watch(self._kube, cache, selection, changed, self._metrics, self._rng)
