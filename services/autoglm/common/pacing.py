"""Pacing of work: the back-off after failures, and token buckets of rates.

Pure: time and the random generator are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first` to `most` seconds, each time shortened by up to `jitter`."""

    first: float = 0.5
    most: float = 120.0
    jitter: float = 0.3

    def delay(self, failures: int, rng: Random) -> float:
        """Return the seconds to wait after so many failures, counted from 1."""
        # The exponent is bounded, since floats are.
        full = min(self.most, self.first * 2.0 ** min(failures - 1, 60))
        return full * (1 - self.jitter * rng.random())


class TokenBucket:
    """Gains `rate` tokens a second, up to `capacity`, and starts full.

    Taking may leave a negative level, when a request turns out to need more than was estimated;
    it is made up before the next one may take.
    """

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
        """Take tokens; a negative amount returns them, up to the capacity."""
        self._level = min(self.capacity, self.level(now) - amount)

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until it holds so much, or is full; 0 if it does now."""
        missing = min(amount, self.capacity) - self.level(now)
        # A caller that waits exactly so long must not be delayed by a rounding error.
        return missing / self.rate if missing > self.capacity * _ROUNDING else 0.0
