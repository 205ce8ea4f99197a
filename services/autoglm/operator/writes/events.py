"""Writes the events of resources, aggregated and rate-limited.

The same message about the same resource becomes one event with a count; different messages for the
same reason are bounded. Events that are dropped are still in the conditions and in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from autoglm.api import API_VERSION, KIND
from autoglm.api.labels import FIELD_MANAGER
from autoglm.kube.kinds import EVENT, Key
from autoglm.kube.transport import Refused, Unreachable
from autoglm.kube.verbs import Kube
from autoglm.operator.types import Event, Raw

_FORGET_SECONDS = 3600.0
# The limit of events.k8s.io/v1, in bytes.
_LONGEST_NOTE = 1024
_log = logging.getLogger("autoglm.operator")


@dataclass(frozen=True, slots=True)
class EventUpdate:
    """An event to create or to update."""

    name: str
    event: Event
    count: int
    """Occurrences so far; 1 for an event to create."""


@dataclass(slots=True)
class _Series:
    """One event and its repetitions."""

    name: str
    first: float
    written: float
    count: int = 1


@dataclass(slots=True)
class EventCorrelator:
    """Events of the last hour by resource and reason. Pure: the time is passed in."""

    repeat_seconds: float = 60.0
    """Seconds after which a repeated event is updated with its count."""
    burst: int = 5
    """Limit of different events for one reason of one resource within `burst_seconds`."""
    burst_seconds: float = 60.0
    _series: dict[tuple[Key, str, str], dict[Event, _Series]] = field(default_factory=dict)
    _serial: int = 0

    def correlate(self, key: Key, uid: str, event: Event, now: float) -> EventUpdate | None:
        """Return the write for `event`; None to write nothing now."""
        recent = self._series.setdefault((key, uid, event.reason), {})
        for old in [e for e, s in recent.items() if now - s.written > _FORGET_SECONDS]:
            del recent[old]
        if (series := recent.get(event)) is None:
            if sum(now - s.first < self.burst_seconds for s in recent.values()) >= self.burst:
                return None
            self._serial += 1
            # Unique over restarts, since `now` only grows.
            name = f"{key.name}.{int(now * 1000):x}.{self._serial:x}"
            recent[event] = _Series(name, now, now)
            return EventUpdate(name, event, 1)
        series.count += 1
        if now - series.written < self.repeat_seconds:
            return None
        series.written = now
        return EventUpdate(series.name, event, series.count)

    def forget(self, key: Key) -> None:
        """Drop the events of a deleted resource."""
        for index in [i for i in self._series if i[0] == key]:
            del self._series[index]


@dataclass(frozen=True, slots=True)
class EventRecorder:
    """Writes events in the name of one operator."""

    kube: Kube
    identity: str
    """Identity of the operator."""
    clock: Callable[[], float]
    """Returns seconds since the epoch."""
    correlator: EventCorrelator = field(default_factory=EventCorrelator)

    async def record(self, resource: Raw, event: Event) -> None:
        """Write an event; errors are logged only, since a reconcile does not depend on events."""
        metadata, now = resource["metadata"], self.clock()
        key = Key(metadata["namespace"], metadata["name"])
        update = self.correlator.correlate(key, metadata["uid"], event, now)
        if update is None:
            return
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            if update.count == 1:
                body = self._body(resource, update, moment)
                await self.kube.create(EVENT.path(key.namespace), body)
            else:
                series = {"series": {"count": update.count, "lastObservedTime": moment}}
                await self.kube.merge(EVENT.path(key.namespace, update.name), series)
        except (Refused, Unreachable) as error:
            fields = {"resource": str(key), "error": str(error)}
            _log.warning("cannot write an event", extra={"fields": fields})

    def _body(self, resource: Raw, update: EventUpdate, moment: str) -> dict[str, Any]:
        """Return an events.k8s.io/v1 Event."""
        metadata = resource["metadata"]
        regarding = {k: metadata[k] for k in ("name", "namespace", "uid")}
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": update.name, "namespace": metadata["namespace"]},
            "eventTime": moment,
            "reportingController": f"autoglm.io/{FIELD_MANAGER}",
            "reportingInstance": self.identity,
            "action": "Reconcile",
            "regarding": {"apiVersion": API_VERSION, "kind": KIND} | regarding,
            "type": update.event.type,
            "reason": update.event.reason,
            "note": update.event.message.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
        }
