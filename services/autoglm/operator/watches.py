"""Watches every kind that the operator requires, and fills the caches.

Optional kinds are in `optional`. Decides nothing about resources; reports changed ones by key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

from autoglm.api.labels import SERVICE_NAME
from autoglm.kube.kinds import CHILDREN, WARNING, Key
from autoglm.kube.reflector import Query, Reflector
from autoglm.kube.store import Cache, Selection, watch
from autoglm.kube.verbs import Kube
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import MANAGED, WARNINGS, Caches
from autoglm.operator.optional import OptionalKinds


@dataclass(frozen=True, slots=True)
class Scope:
    """Namespaces to watch (empty: all), and the Service of the gateway."""

    namespaces: tuple[str, ...]
    gateway_namespace: str
    gateway_service: str


@dataclass(frozen=True, slots=True)
class ChangeHandlers:
    """Callbacks for changes, with the key of the resource."""

    changed: Callable[[Key], None]
    """An object that belongs to the resource has changed."""
    resource_changed: Callable[[Key], None]
    """The resource itself has changed."""


class Watches:
    """All watches of the operator."""

    def __init__(
        self,
        kube: Kube,
        caches: Caches,
        scope: Scope,
        handlers: ChangeHandlers,
        metrics: Metrics,
        rng: Random,
    ) -> None:
        self._kube = kube
        self._caches = caches
        self._scope = scope
        self._handlers = handlers
        self._metrics = metrics
        self._rng = rng
        self._required: dict[str, list[Reflector[bytes]]] = {}
        self._optional = OptionalKinds(kube, caches, metrics, self._reflectors, self._all_changed)
        for cache in caches.by_kind():
            metrics.cached.labels(cache.kind.kind).set_function(partial(len, cache))

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all watches; return when every required kind has been listed once, and optional
        kinds too, as far as the API server serves them and lists them soon."""
        caches = self._caches
        for kind in CHILDREN:
            self._start(tasks, caches.children[kind], MANAGED)
        self._start(tasks, caches.pods, MANAGED)
        self._start(tasks, caches.resources, (), self._handlers.resource_changed)
        # Not required: events only explain failures, and gateways are polled periodically anyway.
        for events in self._reflectors(caches.warnings, WARNINGS):
            tasks.create_task(events.run(), name=f"watch {WARNING.kind}")
        tasks.create_task(self._gateway_reflector().run(), name="watch EndpointSlice")
        self._optional.start(tasks)
        for watches in self._required.values():
            for one in watches:
                await one.synced.wait()
        await self._optional.settled()

    def unsynced(self) -> Mapping[str, str]:
        """Return the required kinds that are not listed yet, each with the cause."""
        return {
            kind: next((w.problem for w in watches if w.problem), "not listed yet")
            for kind, watches in list(self._required.items())
            if not all(w.synced.is_set() for w in watches)
        }

    def _all_changed(self) -> None:
        for key in self._caches.resources.owners():
            self._handlers.changed(key)

    def _start(
        self,
        tasks: asyncio.TaskGroup,
        cache: Cache,
        query: Query,
        changed: Callable[[Key], None] | None = None,
    ) -> None:
        watches = self._required[cache.kind.kind] = self._reflectors(cache, query, changed)
        for one in watches:
            tasks.create_task(one.run(), name=f"watch {cache.kind.kind}")

    def _reflectors(
        self,
        cache: Cache,
        query: Query = MANAGED,
        changed: Callable[[Key], None] | None = None,
        problem_changed: Callable[[], None] = lambda: None,
    ) -> list[Reflector[bytes]]:
        """Return one reflector for all namespaces, or one for each namespace of the scope."""
        return [
            self._reflector(
                cache,
                Selection(namespace, query),
                changed or self._handlers.changed,
                problem_changed,
            )
            for namespace in self._scope.namespaces or ("",)
        ]

    def _gateway_reflector(self) -> Reflector[bytes]:
        service = (("labelSelector", f"{SERVICE_NAME}={self._scope.gateway_service}"),)
        selection = Selection(self._scope.gateway_namespace, service)
        return self._reflector(self._caches.gateway_slices, selection, lambda _: None)

    def _reflector(
        self,
        cache: Cache,
        selection: Selection,
        changed: Callable[[Key], None],
        problem_changed: Callable[[], None] = lambda: None,
    ) -> Reflector[bytes]:
        return watch(
            self._kube, cache, selection, changed, self._metrics, self._rng, problem_changed
        )
