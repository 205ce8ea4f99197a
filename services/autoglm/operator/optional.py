"""Kinds that a cluster need not have: which of them can be used now, and why another cannot.

An optional kind never keeps the operator from leading: where it cannot be listed (forbidden, a
conversion webhook that fails, a server that hangs) the operator works without it, reports that,
and picks it up once its watch has listed it.
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
from autoglm.operator.observe import World

_DISCOVERY_SECONDS = 60.0
_FIRST_LIST_SECONDS = 5.0
"""How long leading waits for the first lists, so that most operators begin with all kinds."""
_NOT_FOUND = 404
# Newer than any object, so that all of them are dropped.
_NEWEST = 2**63
_log = logging.getLogger("autoglm.operator")


class _Served(msgspec.Struct):
    """Of an APIResourceList, what is read."""

    class Resource(msgspec.Struct):
        kind: str

    resources: list[Resource] = []


_served = msgspec.json.Decoder(_Served)


class Watches(Protocol):
    """Makes the watches of a kind; they fill the cache while they run."""

    def __call__(
        self,
        cache: Cache,
        query: tuple[tuple[str, str], ...] = ...,
        changed: None = ...,
        reported: Callable[[], None] = ...,
    ) -> list[Reflector[bytes]]: ...


@dataclass(slots=True)
class _State:
    """What is known of one kind."""

    watches: list[Reflector[bytes]] = field(default_factory=list)
    """Empty while the API server does not have it."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    undiscovered: str = ""
    """Why it is unknown whether the API server has it."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It is known whether the kind can be used."""

    @property
    def is_listed(self) -> bool:
        """What was listed once stays in use: the last state is kept, as that of other kinds."""
        return bool(self.watches) and all(watch.synced.is_set() for watch in self.watches)

    @property
    def problem(self) -> str:
        """Why the kind cannot be used; empty where it can, or is not there."""
        if self.is_listed:
            return ""
        return next((w.problem for w in self.watches if w.problem), self.undiscovered)


class OptionalKinds:
    """Keeps `world.optional_kinds` and `world.unavailable_kinds`; `changed` follows each change."""

    def __init__(
        self,
        kube: Kube,
        world: World,
        metrics: Metrics,
        watches: Watches,
        changed: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._world = world
        self._metrics = metrics
        self._watches = watches
        self._changed = changed
        self._states = {kind: _State() for kind in OPTIONAL_CHILDREN}

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Follow every optional kind from now on, in tasks of the group."""
        for kind in self._states:
            tasks.create_task(self._discover(kind, tasks), name=f"discover {kind.kind}")

    async def settled(self) -> None:
        """Wait until each kind is listed, unavailable or not there, but not for long."""
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
                state.watches = self._watches(self._world.children[kind], reported=self._publish)
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
        """The kind was removed, and its objects with it."""
        for task in state.tasks:
            task.cancel()
        if state.watches:
            cache = self._world.children[kind]
            cache.replace((), _NEWEST)
        state.watches, state.tasks = [], []
        state.settled.set()

    async def _serves(self, kind: Kind) -> bool | str:
        """Return whether the API server has the kind, or why that is unknown."""
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
        world = self._world
        if (usable, unavailable) != (world.optional_kinds, world.unavailable_kinds):
            _report(unavailable, world.unavailable_kinds)
            world.optional_kinds, world.unavailable_kinds = usable, unavailable
            self._changed()


def _report(now: Mapping[str, str], before: Mapping[str, str]) -> None:
    for kind, why in now.items():
        if before.get(kind) != why:
            fields = {"kind": kind, "error": why}
            _log.warning("working without an optional kind", extra={"fields": fields})
    for kind in before.keys() - now.keys():
        _log.info("an optional kind is available again", extra={"fields": {"kind": kind}})
