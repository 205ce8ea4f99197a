"""The retry budget: how many retries the gateway may add to the load of its pods. Pure.

Each model has its own budget, so that one failing model takes none of the others' retries. A budget
is a share of the requests plus a small steady rate, saved up to a reserve: it covers a pod that
dies with many requests in flight, and does not multiply the load of a failing fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autoglm.api.spec import traffic
from autoglm.gateway.endpoints.deployments import Key
from autoglm.gateway.endpoints.snapshot import ModelView
from autoglm.gateway.proxy.hedging import Hedges


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
        """Adds the share of one new request."""
        self._tokens = min(self._policy.reserve, self._tokens + self._policy.ratio)

    def withdraw(self, now: float) -> bool:
        """Withdraws one retry. Returns False where the budget is spent."""
        earned = (now - self._filled_at) * self._policy.per_second
        self._tokens = min(self._policy.reserve, self._tokens + earned)
        self._filled_at = now
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
        """Returns the budget of a model. Drops those of models that are not in `known`."""
        if model is None:
            return self._unknown
        owner = _owner(name, model)
        policy = self._policy(model.rules.routing.retries)
        mine = self._own.get(owner)
        if mine is None or mine.policy != policy:
            mine = Retries(policy, RetryBudget(policy, now))
            owners = {_owner(*item) for item in known.items()}
            kept = {key: own for key, own in self._own.items() if key in owners}
            self._own = kept | {owner: mine}
        return mine

    def _policy(self, own: traffic.Retries) -> RetryPolicy:
        base = self._unknown.policy
        if own.attempts is None and own.budget_ratio is None:
            return base
        return replace(
            base,
            attempts=base.attempts if own.attempts is None else own.attempts,
            ratio=base.ratio if own.budget_ratio is None else own.budget_ratio,
        )


def _owner(name: str, model: ModelView) -> Key | str:
    return model.resource.key if model.resource else model.model.name or name
