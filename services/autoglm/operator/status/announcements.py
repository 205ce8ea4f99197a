"""Which events are written, so that they inform and never flood. Pure.

The same sentence about the same resource becomes one event with a count; different sentences for
the same reason are bounded. What is left out is still in the conditions and in the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from autoglm.kube.key import Key
from autoglm.operator.observed import Event

_FORGET_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """An event to write."""

    name: str
    event: Event
    count: int
    """1: create it; more: it was said before, so often in all."""


@dataclass(slots=True)
class _Said:
    name: str
    event: Event
    first: float
    written: float
    count: int = 1


@dataclass(slots=True)
class Announcements:
    """Events of the last hour by resource and reason."""

    repeat_seconds: float = 60.0
    """A repeated event is written again after so long, with its count."""
    burst: int = 5
    """Different events for one reason of one resource within `burst_seconds`."""
    burst_seconds: float = 60.0
    _said: dict[tuple[Key, str, str], dict[Event, _Said]] = field(default_factory=dict)
    _serial: int = 0

    def line(self, key: Key, uid: str, event: Event, now: float) -> Line | None:
        """What to write for `event`; None to write nothing now."""
        said = self._said.setdefault((key, uid, event.reason), {})
        for old in [e for e, s in said.items() if now - s.written > _FORGET_AFTER]:
            del said[old]
        if (known := said.get(event)) is None:
            return self._new(key, said, event, now)
        known.count += 1
        if now - known.written < self.repeat_seconds:
            return None
        known.written = now
        return Line(known.name, event, known.count)

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        for index in [i for i in self._said if i[0] == key]:
            del self._said[index]

    def _new(self, key: Key, said: dict[Event, _Said], event: Event, now: float) -> Line | None:
        if sum(now - s.first < self.burst_seconds for s in said.values()) >= self.burst:
            return None
        self._serial += 1
        # Unique over restarts, since `now` only grows.
        name = f"{key.name}.{int(now * 1000):x}.{self._serial:x}"
        said[event] = _Said(name, event, now, now)
        return Line(name, event, 1)
