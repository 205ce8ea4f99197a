"""Routes requests: calls `pick`, and updates its memory and the metrics of decisions.

`explain` formats a decision for the debug header and `autoglm explain-route`.
"""

from __future__ import annotations

from collections.abc import Set
from functools import cache
from random import Random

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.decide import pick
from autoglm.gateway.routing.latency import Sending
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.prefix_index import salt_of
from autoglm.gateway.routing.scorers import share_in_use, tokens_in_use
from autoglm.gateway.routing.types import Decision


class Router:
    """Routes requests. `default` is the policy of models whose resource names none."""

    def __init__(self, metrics: Metrics, rng: Random, default: RoutingPolicy) -> None:
        self.memory = Memory()
        self._decisions = cache(metrics.routing_decisions.labels)
        self._knowledge = cache(metrics.prefix_knowledge.labels)
        self._rng = rng
        self._default = default

    def route(
        self,
        request: GatewayRequest,
        snapshot: Snapshot,
        now: float,
        exclude: Set[str] = frozenset(),
    ) -> Decision:
        """Return the decision of `pick` and record that the request is sent there.

        Raises NoReadyEndpoint or Unimplemented.
        """
        decision = pick(request, snapshot, now, self._rng, self._default, exclude, self.memory)
        self.memory.picked(request, decision.endpoint, decision.known, now)
        self._decisions(decision.policy, decision.reason).inc()
        if decision.known is not None:
            self._knowledge("exact" if decision.is_exact else "approximate").inc()
        return decision

    def preview(self, request: GatewayRequest, snapshot: Snapshot, now: float) -> Decision:
        """Return the decision for the request without recording anything."""
        return pick(request, snapshot, now, self._rng, self._default, memory=self.memory)

    def begin(self, decision: Decision, now: float) -> Sending | None:
        """Begin to measure a request's latency on its endpoint; None where no policy needs it."""
        if decision.uncached_tokens is None:
            return None
        return self.memory.latency.sent(decision.endpoint.url, decision.uncached_tokens, now)

    def gone(self, url: str) -> None:
        """Drop the state of an endpoint that is removed or has lost its cache."""
        self.memory.gone(url)


def explain(
    request: GatewayRequest, decision: Decision, memory: Memory, most: int
) -> dict[str, object]:
    """Return the decision with at most `most` candidates; `candidates_left` counts all."""
    blocks = request.info.prefix.blocks if request.info else ()
    held = memory.prefixes.match(blocks, salt_of(request.principal.tenant, request.model))
    return {
        "model": request.model,
        "policy": decision.policy,
        "endpoint": decision.endpoint.url,
        "reason": decision.reason.value,
        "why": decision.why,
        "prompt_tokens": request.info.prompt_tokens if request.info else 0,
        "prompt_blocks": len(blocks),
        "candidates_left": len(decision.trail.candidates),
        "candidates": [
            {
                "endpoint": view.url,
                "score": round(score, 4),
                "blocks_held": held.get(view.url, 0),
                "share_in_use": round(share_in_use(view.live), 4),
                "in_flight": view.live.in_flight,
                "others": view.live.others,
                "kv_cache_usage": round(view.live.load.kv_cache_usage, 4),
                "tokens_in_flight": tokens_in_use(view.live),
                "missing": list(view.live.load.missing),
                "blocks_are_exact": memory.prefixes.is_exact(view.url),
            }
            for score, view in decision.ranked()[:most]
        ],
    }
