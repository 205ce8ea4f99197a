"""What policies remember between decisions. Written by the router's events, read by policies.

Bounded whatever comes: by the models that are served and the endpoints that there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.latency import Latency
from autoglm.gateway.routing.prefix import MOST_BLOCKS, UNKNOWN_BLOCKS, PrefixIndex, salt_of
from autoglm.gateway.routing.rings import Rings
from autoglm.validation.prefix_hash import BLOCK_TOKENS

# Models that anything is known of; past it all start anew, which costs one uneven round.
_MOST_MODELS = 4096
# Of the mean share of a prompt that was known before: what the newest prompt counts for.
_NEWEST = 0.02


@dataclass(slots=True)
class _Past:
    """What is known of a model's requests."""

    requests: int = 0
    reuse: float = 0.0


class Memory:
    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        self.prefixes = PrefixIndex(most_blocks)
        self.latency = Latency()
        self.rings = Rings()
        self._past: dict[str, _Past] = {}

    def turn(self, model: str) -> int:
        """How many requests for the model have been sent somewhere."""
        return self._of(model).requests

    def reuse(self, model: str) -> float:
        """Share of its prompts that some endpoint was known to hold, lately."""
        return self._of(model).reuse

    def picked(
        self, call: GatewayRequest, view: EndpointView, known: int | None = None, now: float = 0.0
    ) -> None:
        """A request is on its way.

        `known` blocks of its prompt were known to be held somewhere; from now on all are held by
        the endpoint. None where the policy does not care.
        """
        past = self._past.setdefault(call.model, _Past())
        past.requests += 1
        if known is not None and call.info and call.info.prefix.blocks:
            blocks, salt = call.info.prefix.blocks, salt_of(call.principal.tenant, call.model)
            past.reuse += _NEWEST * (known / len(blocks) - past.reuse)
            capacity = view.live.load.kv_tokens // BLOCK_TOKENS or UNKNOWN_BLOCKS
            self.prefixes.add(view.url, blocks, salt, capacity, now)
        if len(self._past) > _MOST_MODELS:
            self._past.clear()

    def gone(self, url: str) -> None:
        """An endpoint has gone, and its cache with it."""
        self.prefixes.forget(url)
        self.latency.forget(url)

    def _of(self, model: str) -> _Past:
        return self._past.get(model, _NOTHING)


_NOTHING = _Past()
