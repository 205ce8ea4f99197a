"""How many retries the gateway may add to the load of its pods. Pure; used by the relay.

A resource whose `spec.routing.retries` has a say gets a budget of its own, the others share one.

A share of the requests seen plus a small steady rate, saved up to a reserve: a pod that dies with
many requests in flight is covered, a fleet in trouble is not buried under repeats.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from autoglm.gateway.resources import Key, Resource


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


@dataclass(frozen=True, slots=True)
class Retries:
    """What holds for one call."""

    policy: RetryPolicy
    budget: RetryBudget
    said: tuple[int | None, float | None] = (None, None)
    """What the resource's rules said of attempts and ratio."""


class RetriesByResource:
    """`policy` is the gateway's own, for whatever a resource leaves open."""

    def __init__(self, policy: RetryPolicy, now: float) -> None:
        self._default = Retries(policy, RetryBudget(policy, now))
        self._own: dict[Key, Retries] = {}

    def of(self, resource: Resource | None, known: Container[Key], now: float) -> Retries:
        """`known` are the resources there are; what others left behind is forgotten."""
        if resource is None:
            return self._default
        attempts, ratio = resource.rules.attempts, resource.rules.budget_ratio
        if attempts is None and ratio is None:
            return self._default
        mine = self._own.get(resource.key)
        if mine is None or mine.said != (attempts, ratio):
            mine = self._begin(attempts, ratio, now)
            kept = {key: own for key, own in self._own.items() if key in known}
            self._own = kept | {resource.key: mine}
        return mine

    def _begin(self, attempts: int | None, ratio: float | None, now: float) -> Retries:
        base = self._default.policy
        policy = replace(
            base,
            attempts=base.attempts if attempts is None else attempts,
            ratio=base.ratio if ratio is None else ratio,
        )
        return Retries(policy, RetryBudget(policy, now), (attempts, ratio))
