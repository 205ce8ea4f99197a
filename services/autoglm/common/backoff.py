"""How long to wait after a failure. Pure: chance is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first` to `most` seconds, each time shortened by up to `jitter`."""

    first: float = 0.5
    most: float = 120.0
    jitter: float = 0.3

    def delay(self, failures: int, rng: Random) -> float:
        """`failures` is 1 for the first."""
        # The exponent is bounded, since floats are.
        full = min(self.most, self.first * 2.0 ** min(failures - 1, 60))
        return full * (1 - self.jitter * rng.random())
