"""Formats a decision trace: the request, what was known of each candidate, and the reason.

Pure. For the debug header and `autoglm explain-route`.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.prefix import salt_of
from autoglm.gateway.routing.scorers import share_in_use, tokens_in_use
from autoglm.gateway.routing.types import Decision


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
            _candidate(view, score, held) | {"blocks_are_exact": memory.prefixes.is_exact(view.url)}
            for score, view in decision.ranked()[:most]
        ],
    }


def _candidate(view: EndpointView, score: float, held: Mapping[str, int]) -> dict[str, object]:
    live = view.live
    return {
        "endpoint": view.url,
        "score": round(score, 4),
        "blocks_held": held.get(view.url, 0),
        "share_in_use": round(share_in_use(live), 4),
        "in_flight": live.in_flight,
        "others": live.others,
        "kv_cache_usage": round(live.load.kv_cache_usage, 4),
        "tokens_in_flight": tokens_in_use(live),
        "missing": list(live.load.missing),
    }
