"""Routes calls and remembers: `pick`, its memory, and the count of decisions. Called by the relay.

Decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import cache
from random import Random

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.contracts import Decision
from autoglm.gateway.routing.decide import pick
from autoglm.gateway.routing.memory import Memory


class Router:
    """`default` is the policy of models whose resource names none."""

    def __init__(
        self, metrics: Metrics, rng: Random, default: RoutingPolicy = "LeastLoaded"
    ) -> None:
        self.memory = Memory()
        self._decisions = cache(metrics.routing_decisions.labels)
        self._knowledge = cache(metrics.prefix_knowledge.labels)
        self._rng = rng
        self._default = default

    def route(
        self, call: GatewayRequest, snapshot: Snapshot, now: float, exclude: Set[str] = frozenset()
    ) -> Decision:
        """As `pick`; the request is taken to be sent where it says."""
        decision = pick(call, snapshot, now, self._rng, exclude, self.memory, self._default)
        self.memory.picked(call, decision.endpoint, decision.known, now)
        self._decisions(decision.policy, decision.reason).inc()
        if decision.known is not None:
            self._knowledge("exact" if decision.is_exact else "approximate").inc()
        return decision

    def preview(self, call: GatewayRequest, snapshot: Snapshot, now: float) -> Decision:
        """Where the call would go; nothing is sent, counted or remembered."""
        return pick(call, snapshot, now, self._rng, frozenset(), self.memory, self._default)

    @contextmanager
    def sending(
        self, call: GatewayRequest, decision: Decision, clock: Callable[[], float]
    ) -> Iterator[Callable[[float], None]]:
        """Open while the request is on the endpoint; what it gives takes the first chunk's time."""
        if decision.uncached_tokens is None:
            yield _nothing
            return
        latency, url = self.memory.latency, decision.endpoint.url
        sending = latency.sent(url, decision.uncached_tokens, clock())
        is_stream = call.info is not None and call.info.streaming
        try:
            yield lambda at: latency.answered(sending, at, is_first_token=is_stream)
        finally:
            latency.ended(sending, clock())

    def gone(self, url: str) -> None:
        """The endpoint has gone, or has lost its cache."""
        self.memory.gone(url)


def _nothing(_: float) -> None:
    """Where the policy does not care when the first chunk comes."""
