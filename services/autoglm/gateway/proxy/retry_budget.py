"""The budgets of extra attempts: how many retries and hedges the gateway may add to the load. Pure.

Each model has its own budgets, so that one failing model takes none of the others' retries. A retry
budget is a share of the requests plus a small steady rate, saved up to a reserve: it covers a pod
that dies with many requests in flight, and does not multiply the load of a failing fleet. Hedges
(Dean and Barroso, "The Tail at Scale", 2013) start after the usual latency, within a share of the
requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autoglm.api.spec.traffic import Hedging
from autoglm.gateway.endpoints.snapshot import ModelView
from autoglm.kube.kinds import Key

_REMEMBERED = 256
# Fewer samples give no percentile.
_MIN_KNOWN = 20
_HEDGE_RESERVE = 10.0


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
        """Add the share of one new request."""
        policy = self._policy
        self._tokens = min(policy.reserve, self._tokens + policy.ratio)

    def withdraw(self, now: float) -> bool:
        """Withdraw one retry. Returns False where the budget is spent."""
        earned = (now - self._filled_at) * self._policy.per_second
        self._tokens = min(self._policy.reserve, self._tokens + earned)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Hedges:
    """The hedging budget and the latencies of one model."""

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)
        self._tokens = 1.0

    def note(self, policy: Hedging, waited: float) -> None:
        """Record the seconds until a first chunk."""
        self._waits.append(waited)
        self._tokens = min(_HEDGE_RESERVE, self._tokens + policy.max_extra_ratio)

    def delay(self, policy: Hedging) -> float | None:
        """Return the seconds to wait for a first chunk before hedging; None is no hedging."""
        if policy.delay_seconds is not None:
            return policy.delay_seconds
        if policy.percentile is None or len(self._waits) < _MIN_KNOWN:
            return None
        ordered = sorted(self._waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * policy.percentile / 100))]

    def withdraw(self) -> bool:
        """Withdraw a second attempt from the budget. Returns False where it is spent."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Retries:
    """The retry policy and budgets of one model."""

    policy: RetryPolicy
    budget: RetryBudget
    hedges: Hedges = field(default_factory=Hedges)


class RetriesByModel:
    """Retry budgets by resource. `policy` is the gateway's own, for what a resource does not set.

    A resource has one budget for all its names. Unknown names share one.
    """

    def __init__(self, policy: RetryPolicy, now: float) -> None:
        self._unknown = Retries(policy, RetryBudget(policy, now))
        self._own: dict[Key | str, Retries] = {}

    def of(
        self, name: str, model: ModelView | None, known: Mapping[str, ModelView], now: float
    ) -> Retries:
        """Return the budget of a model. Drops those of models that are not in `known`."""
        if model is None:
            return self._unknown
        own, policy = model.rules.routing.retries, self._unknown.policy
        if own.attempts is not None:
            policy = replace(policy, attempts=own.attempts)
        if own.budget_ratio is not None:
            policy = replace(policy, ratio=own.budget_ratio)
        owner = _owner(name, model)
        mine = self._own.get(owner)
        if mine is None or (mine.policy is not policy and mine.policy != policy):
            mine = Retries(policy, RetryBudget(policy, now))
            owners = {_owner(*item) for item in known.items()}
            kept = {key: retries for key, retries in self._own.items() if key in owners}
            self._own = kept | {owner: mine}
        return mine


def _owner(name: str, model: ModelView) -> Key | str:
    return model.resource.key if model.resource else model.model.name or name
