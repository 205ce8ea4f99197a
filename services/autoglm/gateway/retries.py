"""How many retries the gateway may add to the load of its pods. Pure; used by the relay.

A share of the requests seen plus a small steady rate, saved up to a reserve: a pod that dies with
many requests in flight is covered, a fleet in trouble is not buried under repeats.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` counts the first one; `ratio` is retries per request, `per_second` is on top."""

    attempts: int = 3
    ratio: float = 0.2
    per_second: float = 10.0
    reserve: float = 100.0


class RetryBudget:
    """A token bucket that requests and time fill."""

    def __init__(self, policy: RetryPolicy, now: float) -> None:
        self._policy = policy
        self._tokens = policy.reserve
        self._filled_at = now

    def deposit(self) -> None:
        """A request has come."""
        self._tokens = min(self._policy.reserve, self._tokens + self._policy.ratio)

    def withdraw(self, now: float) -> bool:
        """Whether a retry may be made now; it is paid for if so."""
        earned = (now - self._filled_at) * self._policy.per_second
        self._tokens = min(self._policy.reserve, self._tokens + earned)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
