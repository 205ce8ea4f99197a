"""Limits concurrent writes to the API server to what it can carry. Pure.

Additive increase, multiplicative decrease. Some writes become slow because they contend with each
other (allocation of Service addresses, admission webhooks, a small etcd); more concurrency only
makes each of them slower. A write is compared with the shortest recent duration of the same kind,
so that a distant or slow server is not mistaken for a congested one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FIRST: Final = 4
"""Concurrent writes at the start, which measure the usual duration."""
_SLOW_SECONDS = 1.0
_SLOW_FACTOR = 3.0
_AFTER_SLOW = 0.7
_AFTER_OVERLOAD = 0.5
_WINDOW_SECONDS = 300.0


@dataclass(slots=True)
class Shortest:
    """The shortest duration in the last one or two windows."""

    since: float
    now: float = float("inf")
    before: float = float("inf")

    def add(self, seconds: float, at: float) -> float:
        """Add a duration in seconds; return the shortest one."""
        if at - self.since >= _WINDOW_SECONDS:
            self.before, self.now, self.since = self.now, float("inf"), at
        self.now = min(self.now, seconds)
        return min(self.now, self.before)


@dataclass(slots=True)
class WriteLimit:
    """The current limit, between 1 and `most`, and the writes in flight."""

    most: int
    limit: float = FIRST
    in_flight: int = 0
    _shortest: dict[str, Shortest] = field(default_factory=dict)
    _cut_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.limit = min(self.limit, self.most)

    @property
    def has_room(self) -> bool:
        return self.in_flight < int(self.limit)

    def began(self) -> None:
        self.in_flight += 1

    def abandoned(self) -> None:
        """Record a write that this process cancelled; it is no measure of the server."""
        self.in_flight -= 1

    def succeeded(self, kind: str, began: float, now: float) -> None:
        """Record a successful write of this kind. Times are in seconds."""
        # A limit that is not used has not been tested.
        was_used = 2 * self.in_flight >= int(self.limit)
        self.in_flight -= 1
        seconds = now - began
        usual = self._shortest.setdefault(kind, Shortest(now)).add(seconds, now)
        if seconds > max(_SLOW_SECONDS, _SLOW_FACTOR * usual):
            self._cut(_AFTER_SLOW, began, now)
        elif was_used:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def overloaded(self, began: float, now: float) -> None:
        """Record a write that the server rejected as overloaded, or that timed out."""
        self.in_flight -= 1
        self._cut(_AFTER_OVERLOAD, began, now)

    def _cut(self, factor: float, began: float, now: float) -> None:
        # A write that began before the last cut is no measure of the limit since.
        if began >= self._cut_at:
            self.limit = max(1.0, self.limit * factor)
            self._cut_at = now
