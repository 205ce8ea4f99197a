"""Watches every kind that the operator reads, and fills the caches; reports changed resources.

An optional kind never blocks the operator: where it cannot be listed (forbidden, a failing
conversion webhook, a server that hangs) the operator works without it, reports that, and uses it
once its watch has listed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

import msgspec

from autoglm.api.labels import SERVICE_NAME
from autoglm.kube.kinds import CHILDREN, OPTIONAL_CHILDREN, PROFILE, WARNING, Key, Kind
from autoglm.kube.reflector import Reflector
from autoglm.kube.store import Cache, Selection, watch
from autoglm.kube.transport import Query, Refused, Unreachable
from autoglm.kube.verbs import Kube
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import MANAGED, WARNINGS, Caches
from autoglm.operator.settings import OperatorSettings

_DISCOVERY_SECONDS = 60.0
_FIRST_LIST_SECONDS = 5.0
"""How long the start waits for the first lists, so that most operators start with all kinds."""
# Newer than any object: all of them are dropped.
_NEWEST = 2**63
_log = logging.getLogger("autoglm.operator")


class _Served(msgspec.Struct):
    """The fields of an APIResourceList that are read."""

    class Resource(msgspec.Struct):
        kind: str

    resources: list[Resource] = []


_served = msgspec.json.Decoder(_Served)


@dataclass(frozen=True, slots=True)
class ChangeHandlers:
    """Callbacks for changes, with the key of the resource."""

    changed: Callable[[Key], None]
    """An object that belongs to the resource has changed."""
    resource_changed: Callable[[Key], None]
    """The resource itself has changed."""
    profile_changed: Callable[[Key], None] = lambda _: None
    """The profile of this key has changed."""


@dataclass(slots=True)
class _OptionalKind:
    """Discovery and watches of one optional kind."""

    watches: list[Reflector[bytes]] = field(default_factory=list)
    """Empty while the API server does not serve the kind."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    undiscovered: str = ""
    """Why it is unknown whether the API server serves the kind."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is known whether the kind can be used."""

    @property
    def is_listed(self) -> bool:
        """Return whether the kind was listed. It stays in use from then on."""
        return bool(self.watches) and all(one.synced.is_set() for one in self.watches)

    @property
    def problem(self) -> str:
        """Return why the kind cannot be used; empty if it can, or if it is not served."""
        if self.is_listed:
            return ""
        return next((w.problem for w in self.watches if w.problem), self.undiscovered)


class Watches:
    """All watches of the operator. Updates `caches.optional_kinds` and `unavailable_kinds`, too."""

    def __init__(
        self,
        kube: Kube,
        caches: Caches,
        settings: OperatorSettings,
        handlers: ChangeHandlers,
        metrics: Metrics,
        rng: Random,
    ) -> None:
        self._kube = kube
        self._caches = caches
        self._settings = settings
        self._handlers = handlers
        self._metrics = metrics
        self._rng = rng
        self._required: dict[str, list[Reflector[bytes]]] = {}
        self._optional = {kind: _OptionalKind() for kind in (*OPTIONAL_CHILDREN, PROFILE)}
        for cache in caches.by_kind():
            metrics.cached.labels(cache.kind.kind).set_function(partial(len, cache))

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all watches; return when every required kind has been listed once, and optional
        kinds too, as far as the API server serves them and lists them soon."""
        caches, changed = self._caches, self._handlers.changed
        required: list[tuple[Cache, Query, Callable[[Key], None]]] = [
            *((caches.children[kind], MANAGED, changed) for kind in CHILDREN),
            (caches.pods, MANAGED, changed),
            (caches.resources, (), self._handlers.resource_changed),
        ]
        for cache, query, handler in required:
            watches = self._required[cache.kind.kind] = self._reflectors(cache, query, handler)
            for one in watches:
                tasks.create_task(one.run(), name=f"watch {cache.kind.kind}")
        # Not required: events only explain failures, and gateways are polled periodically anyway.
        for events in self._reflectors(caches.warnings, WARNINGS, changed):
            tasks.create_task(events.run(), name=f"watch {WARNING.kind}")
        service = (("labelSelector", f"{SERVICE_NAME}={self._settings.gateway_service}"),)
        selection = Selection(self._settings.gateway_namespace, service)
        slices = self._reflector(caches.gateway_slices, selection, lambda _: None)
        tasks.create_task(slices.run(), name="watch EndpointSlice")
        for kind in self._optional:
            tasks.create_task(self._discover(kind, tasks), name=f"discover {kind.kind}")
        for watches in self._required.values():
            for one in watches:
                await one.synced.wait()
        try:
            async with asyncio.timeout(_FIRST_LIST_SECONDS):
                for state in self._optional.values():
                    await state.settled.wait()
        except TimeoutError:
            names = [k.kind for k, state in self._optional.items() if not state.settled.is_set()]
            fields = {"kinds": ", ".join(names)}
            _log.warning("starting before optional kinds are listed", extra={"fields": fields})

    def unsynced(self) -> Mapping[str, str]:
        """Return the required kinds that are not listed yet, each with the cause."""
        return {
            kind: next((w.problem for w in watches if w.problem), "not listed yet")
            for kind, watches in list(self._required.items())
            if not all(w.synced.is_set() for w in watches)
        }

    def _reflectors(
        self,
        cache: Cache,
        query: Query,
        changed: Callable[[Key], None],
        problem_changed: Callable[[], None] = lambda: None,
    ) -> list[Reflector[bytes]]:
        """Return one reflector for all namespaces, or one for each namespace of the settings."""
        return [
            self._reflector(cache, Selection(namespace, query), changed, problem_changed)
            for namespace in self._settings.namespace or ("",)
        ]

    def _reflector(
        self,
        cache: Cache,
        selection: Selection,
        changed: Callable[[Key], None],
        problem_changed: Callable[[], None] = lambda: None,
    ) -> Reflector[bytes]:
        metrics, rng = self._metrics, self._rng
        return watch(self._kube, cache, selection, changed, metrics, rng, problem_changed)

    async def _discover(self, kind: Kind, tasks: asyncio.TaskGroup) -> None:
        """Watch an optional kind while the API server serves it."""
        state, is_profile = self._optional[kind], kind is PROFILE
        cache = self._caches.profiles if is_profile else self._caches.children[kind]
        while True:
            served = await self._serves(kind)
            state.undiscovered = served if isinstance(served, str) else ""
            if served is True and not state.watches:
                if is_profile:
                    changed = self._handlers.profile_changed
                    state.watches = [self._reflector(cache, Selection(), changed, self._publish)]
                else:
                    changed = self._handlers.changed
                    state.watches = self._reflectors(cache, MANAGED, changed, self._publish)
                state.tasks = [tasks.create_task(w.run()) for w in state.watches]
                state.tasks.append(tasks.create_task(self._publish_once_listed(state)))
            elif served is False:
                # The kind was removed, and its objects with it.
                for task in state.tasks:
                    task.cancel()
                if state.watches:
                    cache.replace((), _NEWEST)
                state.watches, state.tasks = [], []
                state.settled.set()
            self._publish()
            await asyncio.sleep(_DISCOVERY_SECONDS)

    async def _publish_once_listed(self, state: _OptionalKind) -> None:
        for one in state.watches:
            await one.synced.wait()
        self._publish()

    async def _serves(self, kind: Kind) -> bool | str:
        """Return whether the API server serves the kind, or why that is unknown."""
        try:
            body = await self._kube.get(f"/apis/{kind.api_version}")
        except Refused as error:
            return False if error.is_not_found else str(error)
        except Unreachable as error:
            return str(error)
        return any(r.kind == kind.kind for r in _served.decode(body).resources)

    def _publish(self) -> None:
        """Update which optional kinds can be used; log what has changed, and reconcile all
        resources then."""
        usable = frozenset(kind for kind, state in self._optional.items() if state.is_listed)
        unavailable = {k.kind: s.problem for k, s in self._optional.items() if s.problem}
        for kind, state in self._optional.items():
            if kind in usable or state.problem:
                state.settled.set()
            self._metrics.unavailable.labels(kind.kind).set(int(kind.kind in unavailable))
        caches, before = self._caches, self._caches.unavailable_kinds
        if (usable, unavailable) == (caches.optional_kinds, before):
            return
        for name in sorted(unavailable.keys() | before.keys()):
            if (why := unavailable.get(name)) is None:
                _log.info("an optional kind is available again", extra={"fields": {"kind": name}})
            elif why != before.get(name):
                fields = {"kind": name, "error": why}
                _log.warning("working without an optional kind", extra={"fields": fields})
        caches.optional_kinds, caches.unavailable_kinds = usable, unavailable
        for key in caches.resources.owners():
            self._handlers.changed(key)
