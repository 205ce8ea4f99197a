"""Aggregates and rate-limits events. Pure.

The same message about the same resource becomes one event with a count; different messages for the
same reason are bounded. Events that are dropped are still in the conditions and in the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from autoglm.kube.kinds import Key
from autoglm.operator.observed import Event

_FORGET_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class EventUpdate:
    """An event to create or to update."""

    name: str
    event: Event
    count: int
    """Occurrences so far; 1 for an event to create."""


@dataclass(slots=True)
class _Recorded:
    name: str
    event: Event
    first: float
    written: float
    count: int = 1


@dataclass(slots=True)
class EventCorrelator:
    """Events of the last hour by resource and reason."""

    repeat_seconds: float = 60.0
    """Seconds after which a repeated event is updated with its count."""
    burst: int = 5
    """Limit of different events for one reason of one resource within `burst_seconds`."""
    burst_seconds: float = 60.0
    _recorded: dict[tuple[Key, str, str], dict[Event, _Recorded]] = field(default_factory=dict)
    _serial: int = 0

    def correlate(self, key: Key, uid: str, event: Event, now: float) -> EventUpdate | None:
        """Return the write for `event`; None to write nothing now."""
        recorded = self._recorded.setdefault((key, uid, event.reason), {})
        for old in [e for e, r in recorded.items() if now - r.written > _FORGET_AFTER]:
            del recorded[old]
        if (known := recorded.get(event)) is None:
            return self._new(key, recorded, event, now)
        known.count += 1
        if now - known.written < self.repeat_seconds:
            return None
        known.written = now
        return EventUpdate(known.name, event, known.count)

    def forget(self, key: Key) -> None:
        """Drop the events of a deleted resource."""
        for index in [i for i in self._recorded if i[0] == key]:
            del self._recorded[index]

    def _new(
        self, key: Key, recorded: dict[Event, _Recorded], event: Event, now: float
    ) -> EventUpdate | None:
        if sum(now - r.first < self.burst_seconds for r in recorded.values()) >= self.burst:
            return None
        self._serial += 1
        # Unique over restarts, since `now` only grows.
        name = f"{key.name}.{int(now * 1000):x}.{self._serial:x}"
        recorded[event] = _Recorded(name, event, now, now)
        return EventUpdate(name, event, 1)
