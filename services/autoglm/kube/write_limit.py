"""How many writes may be on their way to the API server at once: as many as it carries. Pure.

Additive increase, multiplicative decrease. Some writes become slow because many of them contend
(Services whose addresses are allocated, admission webhooks, a small etcd); more at once then only
makes each of them slower. The measure is the shortest duration of the same kind of write lately, so
that a server that is far away, or slow by itself, is not taken for a congested one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FIRST: Final = 4
"""Writes at once in the beginning, of which the usual duration is learned."""
_SLOW_SECONDS = 1.0
_SLOW_FACTOR = 3.0
_AFTER_SLOW = 0.7
_AFTER_OVERLOAD = 0.5
_WINDOW_SECONDS = 300.0


@dataclass(slots=True)
class Shortest:
    """The shortest of the durations in the last one or two windows."""

    since: float
    now: float = float("inf")
    before: float = float("inf")

    def add(self, seconds: float, at: float) -> float:
        """Take a duration; return the shortest one."""
        if at - self.since >= _WINDOW_SECONDS:
            self.before, self.now, self.since = self.now, float("inf"), at
        self.now = min(self.now, seconds)
        return min(self.now, self.before)


@dataclass(slots=True)
class WriteLimit:
    """`most` bounds it from above; one write may always be on its way."""

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
        """A write ended by our own doing, which says nothing of the server."""
        self.in_flight -= 1

    def succeeded(self, kind: str, began: float, now: float) -> None:
        """A write of this kind was carried out. Times are in seconds."""
        # A limit that is not used has not been tried.
        was_used = 2 * self.in_flight >= int(self.limit)
        self.in_flight -= 1
        seconds = now - began
        usual = self._shortest.setdefault(kind, Shortest(now)).add(seconds, now)
        if seconds > max(_SLOW_SECONDS, _SLOW_FACTOR * usual):
            self._cut(_AFTER_SLOW, began, now)
        elif was_used:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def overloaded(self, began: float, now: float) -> None:
        """The server said that it has too much to do, or did not respond in time."""
        self.in_flight -= 1
        self._cut(_AFTER_OVERLOAD, began, now)

    def _cut(self, factor: float, began: float, now: float) -> None:
        # What began before the last cut says nothing of the limit since.
        if began >= self._cut_at:
            self.limit = max(1.0, self.limit * factor)
            self._cut_at = now
