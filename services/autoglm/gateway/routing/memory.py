"""The state that policies keep between decisions. Written by the router, read by policies.

It is bounded by the numbers of served models and of endpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.consistent_hash import Rings
from autoglm.gateway.routing.latency import Latency
from autoglm.gateway.routing.prefix_index import MOST_BLOCKS, UNKNOWN_BLOCKS, PrefixIndex, salt_of
from autoglm.validation.prefix_hash import BLOCK_TOKENS

# The most models with state; above it all are reset, which costs one uneven round.
_MOST_MODELS = 4096
# The weight of the newest prompt in the mean share of a prompt that was known before.
_NEWEST = 0.02


@dataclass(slots=True)
class _Past:
    """The history of a model's requests."""

    requests: int = 0
    reuse: float = 0.0


class Memory:
    """Cached prefixes, latencies and rings of all endpoints."""

    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        self.prefixes = PrefixIndex(most_blocks)
        self.latency = Latency()
        self.rings = Rings()
        self._past: dict[str, _Past] = {}

    def turn(self, model: str) -> int:
        """Return how many requests for the model were sent."""
        return self._of(model).requests

    def reuse(self, model: str) -> float:
        """Return the mean share of recent prompts of the model that any endpoint had cached."""
        return self._of(model).reuse

    def picked(
        self,
        request: GatewayRequest,
        view: EndpointView,
        known: int | None = None,
        now: float = 0.0,
    ) -> None:
        """Record that a request is sent to the endpoint.

        `known` blocks of its prompt were known to be cached on any endpoint; from now on the chosen
        one is assumed to hold all of them. None if the policy ignores prefixes.
        """
        model = request.model
        past = self._past.get(model)
        if past is None:
            past = self._past[model] = _Past()
        past.requests += 1
        if known is not None and request.info and request.info.prefix.blocks:
            blocks = request.info.prefix.blocks
            salt = salt_of(request.principal.tenant, model)
            past.reuse += _NEWEST * (known / len(blocks) - past.reuse)
            capacity = view.live.load.kv_tokens // BLOCK_TOKENS or UNKNOWN_BLOCKS
            self.prefixes.add(view.url, blocks, salt, capacity, now)
        if len(self._past) > _MOST_MODELS:
            self._past.clear()

    def gone(self, url: str) -> None:
        """Drop an endpoint that is removed or has lost its cache."""
        self.prefixes.forget(url)
        self.latency.forget(url)

    def _of(self, model: str) -> _Past:
        return self._past.get(model, _NOTHING)


_NOTHING = _Past()
