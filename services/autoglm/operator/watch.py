"""Keeps a cache as the API server is: lists once, then watches. Decides when to list anew.

While the API server is away the cache keeps its last state. Whoever must hear of a change is told
by key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec

from autoglm.common.backoff import Backoff
from autoglm.operator.cache import Cache
from autoglm.operator.kube import Kube
from autoglm.operator.metrics import Metrics
from autoglm.operator.observed import Key
from autoglm.operator.transport import Refused, Unreachable

_GONE = 410
_BACKOFF = Backoff(first=0.2, most=10.0)
# The server ends a watch after some minutes; different ones, so that not all come back at once.
_WATCH_SECONDS = (240, 360)
_log = logging.getLogger("autoglm.operator")


class _Version(msgspec.Struct):
    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str

    metadata: Metadata


_versions = msgspec.json.Decoder(_Version)


@dataclass(frozen=True, slots=True)
class Selection:
    """What to watch: a namespace (empty: all) and the query's selectors."""

    namespace: str = ""
    query: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Watch:
    """One list and watch. `changed` is called with the resource that an object belongs to."""

    kube: Kube
    cache: Cache
    selection: Selection
    changed: Callable[[Key], None]
    metrics: Metrics
    rng: Random
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    _version: str = ""
    _failures: int = 0

    async def run(self) -> None:
        """Until cancelled."""
        why = "start"
        while True:
            try:
                if not self._version:
                    self.metrics.watches.labels(self.cache.kind.kind, why).inc()
                    await self._list()
                await self._follow()
            except (Refused, Unreachable) as error:
                if isinstance(error, Refused):
                    # Also after 403 and 500: nobody knows what was missed.
                    self._version, why = "", "expired" if error.status == _GONE else "refused"
                self._failures += 1
                _say(self.cache.kind.kind, error, self._failures)
                await asyncio.sleep(_BACKOFF.delay(self._failures, self.rng))

    async def _list(self) -> None:
        selection = self.selection
        objects, version = await self.kube.list(
            self.cache.kind, selection.namespace, selection.query
        )
        for owner in self.cache.replace(objects, int(version), selection.namespace):
            self.changed(owner)
        self._version = version
        self.synced.set()

    async def _follow(self) -> None:
        """Until the server ends the watch."""
        seconds = self.rng.randint(*_WATCH_SECONDS)
        query = (*self.selection.query, ("timeoutSeconds", str(seconds)))
        selection = self.selection
        async for event in self.kube.watch(
            self.cache.kind, selection.namespace, query, self._version
        ):
            owner = self._take(event.type, event.object)
            if owner is not None:
                self.changed(owner)
            self._version = _versions.decode(event.object).metadata.resource_version
            self._failures = 0
        self._failures = 0

    def _take(self, kind: str, json: bytes) -> Key | None:
        if kind == "DELETED":
            return self.cache.remove(json)
        return self.cache.put(json) if kind in ("ADDED", "MODIFIED") else None


def _say(kind: str, error: Exception, failures: int) -> None:
    fields = {"kind": kind, "error": str(error), "failures": failures}
    level = logging.INFO if failures == 1 else logging.WARNING
    _log.log(level, "watch interrupted, going on from the last state", extra={"fields": fields})
