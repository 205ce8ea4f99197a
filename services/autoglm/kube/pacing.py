"""Delays before a collection is watched again. Pure: randomness is passed in.

An API server (or a proxy before it) that ends every watch at once must not be polled in a tight
loop, whether or not it delivers an event each time; a watch that ends after its minutes restarts
at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from autoglm.common.pacing import Backoff

SHORT_SECONDS: Final = 1.0
"""A watch that lasts less ended early."""


@dataclass(slots=True)
class Pacing:
    """Computes the delays of one collection from its consecutive failures."""

    rng: Random
    backoff: Backoff
    failures: int = 0
    """Consecutive attempts without a list or an event."""

    def progressed(self) -> None:
        """Record that a list or an event was received."""
        self.failures = 0

    def ended(self, lasted: float, events: int) -> float:
        """Return the seconds to wait after a watch that the server ended without an error.

        `lasted` is how long it was open, in seconds; `events` counts what it delivered.
        """
        if lasted >= SHORT_SECONDS:
            self.failures = 0
            return 0.0
        if not events:
            self.failures += 1
            return self.backoff.delay(self.failures, self.rng)
        # Events arrive, so they must not be delayed; one request a second is no load.
        return (SHORT_SECONDS - lasted) * (1 - self.backoff.jitter * self.rng.random())

    def failed(self, retry_after: float | None = None) -> float:
        """Return the seconds to wait after an error, at least the server's Retry-After."""
        self.failures += 1
        return max(retry_after or 0.0, self.backoff.delay(self.failures, self.rng))
