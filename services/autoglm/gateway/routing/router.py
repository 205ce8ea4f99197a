"""Routes calls and remembers: `pick`, its memory, and the count of decisions. Called by the relay.

Decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Set
from random import Random

from autoglm.api.traffic import RoutingPolicy
from autoglm.gateway.call import Call
from autoglm.gateway.metrics import Metrics
from autoglm.gateway.routing.contracts import Decision
from autoglm.gateway.routing.decide import pick
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.snapshot import Snapshot


class Router:
    """`default` is the policy of models whose resource names none."""

    def __init__(
        self, metrics: Metrics, rng: Random, default: RoutingPolicy = "LeastLoaded"
    ) -> None:
        self.memory = Memory()
        self._decisions = metrics.routing_decisions
        self._rng = rng
        self._default = default

    def route(
        self, call: Call, snapshot: Snapshot, now: float, exclude: Set[str] = frozenset()
    ) -> Decision:
        """As `pick`; the request is taken to be sent where it says."""
        decision = pick(call, snapshot, now, self._rng, exclude, self.memory, self._default)
        self.memory.picked(call, decision.endpoint, decision.known)
        self._decisions.labels(decision.policy, decision.reason).inc()
        return decision

    def gone(self, url: str) -> None:
        """The endpoint has gone, or has lost its cache."""
        self.memory.gone(url)
