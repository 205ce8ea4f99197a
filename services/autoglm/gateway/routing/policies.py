"""The table of policies: filters, scorers and picker of each name in `spec.routing.policy`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.endpoint import EndpointView, Signal
from autoglm.gateway.routing import filters, pickers, scorers
from autoglm.gateway.routing.scorers import share_in_use
from autoglm.gateway.routing.types import Policy, Query


def _share(query: Query, view: EndpointView) -> str:
    return f"least loaded, at {share_in_use(view.live):.3f}"


def _requests(query: Query, view: EndpointView) -> str:
    return f"fewest requests, {view.live.others + view.live.in_flight}"


def _tokens(query: Query, view: EndpointView) -> str:
    return f"fewest tokens in flight, {scorers.tokens_in_use(view.live)}"


def _weight(query: Query, view: EndpointView) -> str:
    return f"drawn by weight, {200 * scorers.free_resources(query, (view,))[0]:.0f} of 200"


def _two(query: Query, view: EndpointView) -> str:
    return f"the better of two, at {share_in_use(view.live):.3f}"


def _cached(query: Query, view: EndpointView) -> str:
    held, blocks = query.matches.get(view.url, 0), len(query.prefix.blocks)
    source = "by its events" if query.memory.prefixes.is_exact(view.url) else "by requests sent"
    load = share_in_use(view.live)
    return f"holds {held} of {blocks} blocks of the prompt {source}, at {load:.3f}"


def _soon(query: Query, view: EndpointView) -> str:
    (seconds,) = query.first_token_seconds((view,))
    return f"fastest, {query.uncached_tokens(view.url)} tokens to compute, in {seconds:.3f} s"


_REQUESTS, _KV = Signal.REQUESTS, Signal.KV_CACHE_USAGE
POLICIES: Mapping[RoutingPolicy, Policy] = MappingProxyType(
    {
        "LeastLoaded": Policy(
            pickers.best, _share, scorers=((scorers.room, 1),), needs=(_REQUESTS,)
        ),
        "LeastRequests": Policy(
            pickers.best, _requests, scorers=((scorers.few_requests, 1),), needs=(_REQUESTS,)
        ),
        "LeastTokens": Policy(
            pickers.best,
            _tokens,
            scorers=((scorers.few_tokens, 1),),
            needs=(Signal.TOKENS_IN_FLIGHT,),
        ),
        "DynamicWeighted": Policy(
            pickers.by_weight,
            _weight,
            scorers=((scorers.free_resources, 1),),
            needs=(_REQUESTS, _KV),
        ),
        "PrefixAffinity": Policy(
            pickers.by_affinity,
            _cached,
            filters=(filters.under_bound,),
            scorers=((scorers.cached, 1), (scorers.headroom, 0.3), (scorers.placement, 0.6)),
            needs=(_REQUESTS,),
            remembers_prompts=True,
        ),
        "LatencyAware": Policy(
            pickers.best,
            _soon,
            filters=(filters.within_slo,),
            scorers=((scorers.soon, 1),),
            needs=(_REQUESTS,),
            remembers_prompts=True,
            remembers_latency=True,
        ),
        "PowerOfTwoChoices": Policy(pickers.better_of_two, _two, needs=(_REQUESTS,)),
        "RoundRobin": Policy(pickers.in_turn, lambda query, view: "next in turn"),
        "Random": Policy(pickers.at_random, lambda query, view: "drawn at random"),
    }
)
