"""Discovers optional kinds: which can be used, and why another cannot be listed.

An optional kind never blocks the operator: where it cannot be listed (forbidden, a failing
conversion webhook, a server that hangs) the operator works without it, reports that, and uses it
once its watch has listed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from autoglm.kube.errors import Refused, Unreachable
from autoglm.kube.kinds import OPTIONAL_CHILDREN, Kind
from autoglm.kube.reflector import Reflector
from autoglm.kube.store import Cache
from autoglm.kube.verbs import Kube
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import Caches

_DISCOVERY_SECONDS = 60.0
_FIRST_LIST_SECONDS = 5.0
"""How long the start waits for the first lists, so that most operators start with all kinds."""
_NOT_FOUND = 404
# Newer than any object: all of them are dropped.
_NEWEST = 2**63
_log = logging.getLogger("autoglm.operator")


class _Served(msgspec.Struct):
    """The fields of an APIResourceList that are read."""

    class Resource(msgspec.Struct):
        kind: str

    resources: list[Resource] = []


_served = msgspec.json.Decoder(_Served)


class MakeReflectors(Protocol):
    """Returns the reflectors of a kind, which fill the cache while they run."""

    def __call__(
        self,
        cache: Cache,
        query: tuple[tuple[str, str], ...] = ...,
        changed: None = ...,
        problem_changed: Callable[[], None] = ...,
    ) -> list[Reflector[bytes]]: ...


@dataclass(slots=True)
class _State:
    """Discovery and watches of one kind."""

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
        return bool(self.watches) and all(watch.synced.is_set() for watch in self.watches)

    @property
    def problem(self) -> str:
        """Return why the kind cannot be used; empty if it can, or if it is not served."""
        if self.is_listed:
            return ""
        return next((w.problem for w in self.watches if w.problem), self.undiscovered)


class OptionalKinds:
    """Updates `caches.optional_kinds` and `caches.unavailable_kinds`; calls `changed` after it."""

    def __init__(
        self,
        kube: Kube,
        caches: Caches,
        metrics: Metrics,
        make_reflectors: MakeReflectors,
        changed: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._caches = caches
        self._metrics = metrics
        self._make_reflectors = make_reflectors
        self._changed = changed
        self._states = {kind: _State() for kind in OPTIONAL_CHILDREN}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Discover and watch every optional kind, in tasks of the group."""
        for kind in self._states:
            tasks.create_task(self._discover(kind, tasks), name=f"discover {kind.kind}")

    async def settled(self) -> None:
        """Wait until each kind is listed, unavailable or not served, at most 5 seconds."""
        try:
            async with asyncio.timeout(_FIRST_LIST_SECONDS):
                for state in self._states.values():
                    await state.settled.wait()
        except TimeoutError:
            names = [k.kind for k, state in self._states.items() if not state.settled.is_set()]
            fields = {"kinds": ", ".join(names)}
            _log.warning("starting before optional kinds are listed", extra={"fields": fields})

    async def _discover(self, kind: Kind, tasks: asyncio.TaskGroup) -> None:
        state = self._states[kind]
        while True:
            served = await self._serves(kind)
            state.undiscovered = served if isinstance(served, str) else ""
            if served is True and not state.watches:
                state.watches = self._make_reflectors(
                    self._caches.children[kind], problem_changed=self._publish
                )
                state.tasks = [tasks.create_task(w.run()) for w in state.watches]
                state.tasks.append(tasks.create_task(self._await_list(state)))
            elif served is False:
                self._drop(kind, state)
            self._publish()
            await asyncio.sleep(_DISCOVERY_SECONDS)

    async def _await_list(self, state: _State) -> None:
        for watch in state.watches:
            await watch.synced.wait()
        self._publish()

    def _drop(self, kind: Kind, state: _State) -> None:
        """Stop the watches and drop the objects of a kind that was removed."""
        for task in state.tasks:
            task.cancel()
        if state.watches:
            cache = self._caches.children[kind]
            cache.replace((), _NEWEST)
        state.watches, state.tasks = [], []
        state.settled.set()

    async def _serves(self, kind: Kind) -> bool | str:
        """Return whether the API server serves the kind, or why that is unknown."""
        try:
            body = await self._kube.get(f"/apis/{kind.api_version}")
        except Refused as error:
            return False if error.status == _NOT_FOUND else str(error)
        except Unreachable as error:
            return str(error)
        return any(r.kind == kind.kind for r in _served.decode(body).resources)

    def _publish(self) -> None:
        usable = frozenset(kind for kind, state in self._states.items() if state.is_listed)
        unavailable = {k.kind: s.problem for k, s in self._states.items() if s.problem}
        for kind, state in self._states.items():
            if kind in usable or state.problem:
                state.settled.set()
            self._metrics.unavailable.labels(kind.kind).set(int(kind.kind in unavailable))
        caches = self._caches
        if (usable, unavailable) != (caches.optional_kinds, caches.unavailable_kinds):
            _report(unavailable, caches.unavailable_kinds)
            caches.optional_kinds, caches.unavailable_kinds = usable, unavailable
            self._changed()


def _report(now: Mapping[str, str], before: Mapping[str, str]) -> None:
    for kind, why in now.items():
        if before.get(kind) != why:
            fields = {"kind": kind, "error": why}
            _log.warning("working without an optional kind", extra={"fields": fields})
    for kind in before.keys() - now.keys():
        _log.info("an optional kind is available again", extra={"fields": {"kind": kind}})
