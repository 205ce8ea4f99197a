"""Fills the caches: a watch for each kind, kopf for the resources, a list now and then for both.

Decides nothing about resources; tells by key what has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from autoglm.api.labels import SERVICE_NAME
from autoglm.operator.cache import Cache
from autoglm.operator.kinds import CHILDREN, OPTIONAL_CHILDREN, RESOURCE, Kind
from autoglm.operator.kube import Kube, Refused, Unreachable
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import OURS, WARNINGS, World
from autoglm.operator.observed import Key
from autoglm.operator.queue import Backoff
from autoglm.operator.watch import Selection, Watch

_DISCOVERY_SECONDS = 60.0
_BACKOFF = Backoff(first=0.5, most=10.0)
_NOT_FOUND = 404
_log = logging.getLogger("autoglm.operator")


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
    saw: Callable[[Key], None]
    """The resource exists now."""


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

    async def fill(self, tasks: asyncio.TaskGroup) -> None:
        """Begins all watches; returns when every cache has been filled once."""
        world = self._world
        synced = [
            watch.synced
            for cache in (*(world.children[kind] for kind in CHILDREN), world.pods)
            for watch in self._begin(tasks, cache, OURS)[0]
        ]
        synced += [w.synced for w in self._begin(tasks, world.warnings, WARNINGS)[0]]
        tasks.create_task(self._gateway_watch().run(), name="watch EndpointSlice")
        for event in synced:
            await event.wait()
        failures = 0
        while not await self.list_resources():
            failures += 1
            await asyncio.sleep(_BACKOFF.delay(failures, self._rng))
        await self._look_for_optional(tasks)

    def take(self, kind: str | None, json: bytes) -> None:
        """An event of kopf's stream; None is a resource that was there before."""
        resources = self._world.resources
        key = resources.remove(json) if kind == "DELETED" else resources.put(json)
        if key is not None:
            self._ears.saw(key)
            self._ears.resource_changed(key)

    async def list_resources(self) -> bool:
        """What kopf's stream may have missed, above all deletions. False if there is no answer."""
        cache = self._world.resources
        try:
            for namespace in self._scope.namespaces or ("",):
                objects, version = await self._kube.list(RESOURCE, namespace, ())
                for key in cache.replace(objects, int(version), namespace):
                    self._ears.resource_changed(key)
        except (Refused, Unreachable) as error:
            _log.warning(
                "AutoGLMDeployments cannot be listed", extra={"fields": {"error": str(error)}}
            )
            return False
        for key in cache.owners():
            self._ears.saw(key)
        return True

    async def discover(self, tasks: asyncio.TaskGroup) -> None:
        """Watches optional kinds from when on the API server has them. Until cancelled."""
        while True:
            await asyncio.sleep(_DISCOVERY_SECONDS)
            await self._look_for_optional(tasks)

    def measure(self) -> None:
        for cache in self._world.caches():
            self._metrics.cached.labels(cache.kind.kind).set(len(cache))

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
        self, tasks: asyncio.TaskGroup, cache: Cache, query: tuple[tuple[str, str], ...]
    ) -> tuple[list[Watch], list[asyncio.Task[None]]]:
        """One watch for all namespaces, or one for each that was asked for."""
        watches = [
            self._watch(cache, Selection(namespace, query), self._ears.changed)
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
