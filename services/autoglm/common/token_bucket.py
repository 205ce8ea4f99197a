"""The token bucket of rates: filled by time, emptied by use. Pure; every method takes `now`.

A bucket may be taken below empty: what turned out dearer than it looked is paid off before the
next one may take.
"""

from __future__ import annotations

_ROUNDING = 1e-9


class Bucket:
    """`rate` a second flow in, up to `capacity`. It begins full."""

    __slots__ = ("_filled_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity
        self._filled_at = now

    def level(self, now: float) -> float:
        passed = max(0.0, now - self._filled_at)
        self._level = min(self.capacity, self._level + passed * self.rate)
        self._filled_at = max(now, self._filled_at)
        return self._level

    def take(self, amount: float, now: float) -> None:
        """A negative amount gives back, up to the capacity."""
        self._level = min(self.capacity, self.level(now) - amount)

    def wait(self, amount: float, now: float) -> float:
        """Seconds until it holds so much, or is full; 0 where it does now."""
        missing = min(amount, self.capacity) - self.level(now)
        # A caller that waits exactly so long must not be delayed by a rounding error.
        return missing / self.rate if missing > self.capacity * _ROUNDING else 0.0
