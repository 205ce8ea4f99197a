"""The policies of `spec.routing.policy`: filters narrow the candidates, pickers choose one.

Filters never leave none, and note objectives that cannot be met. Pickers go by the scores of
`scorers`. `POLICIES` combines them. Pure except for the seeded `rng` of the query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.endpoint import EndpointView, Signal
from autoglm.gateway.routing import scorers
from autoglm.gateway.routing.scorers import share_in_use
from autoglm.gateway.routing.types import Candidates, Policy, Query, Reason

Picked = tuple[EndpointView, Reason]
# An endpoint with this much more than the mean load gets no more requests for its cached prefixes:
# consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016), on measured loads.
BOUND_FACTOR = 1.25
BOUND_SHARE = 0.05
# Above every share that leaves room for one request, for up to 1,000 at once.
_FULL = 0.999


def load_bound(candidates: Candidates, shares: Sequence[float]) -> float:
    """Return the share of capacity in use up to which affinity may fill an endpoint.

    While any endpoint has a free slot in its batch, no request waits, and filling a batch costs
    less than recomputing a long prefix elsewhere. An endpoint that reports no batch size may be
    full at any load.
    """
    bound = _mean_bound(shares)
    if min(shares) >= 1:
        return bound
    if all(view.live.load.max_num_seqs for view in candidates):
        return _FULL
    return min(bound, _FULL)


def _mean_bound(shares: Sequence[float]) -> float:
    return BOUND_FACTOR * sum(shares) / len(shares) + BOUND_SHARE


def within_slo(query: Query, candidates: Candidates) -> Candidates:
    """Return the candidates predicted to meet the objective; all, with a note, if none does."""
    if query.memory.latency.fastest(query.now) is None:
        query.add_note(
            Reason.LATENCY_UNKNOWN, "no endpoint has responded recently: the least work decides"
        )
        return candidates
    if query.slo_seconds is None:
        return candidates
    wanted, seconds = query.slo_seconds, query.first_token_seconds(candidates)
    kept = [view for view, time in zip(candidates, seconds, strict=True) if time <= wanted]
    if not kept:
        query.add_note(Reason.SLO_MISSED, f"no endpoint is predicted to respond in {wanted:g} s")
    return kept or candidates


def under_bound(query: Query, candidates: Candidates) -> Candidates:
    """Return the candidates within the load bound; load overrides affinity."""
    shares = query.shares_in_use(candidates)
    most = max(shares)
    # Within the bound whether or not all endpoints report their batch sizes.
    if most <= _FULL and most <= _mean_bound(shares):
        return candidates
    bound = load_bound(candidates, shares)
    if most <= bound:
        return candidates
    kept = [view for view, share in zip(candidates, shares, strict=True) if share <= bound]
    held = [query.matches.get(view.url, 0) for view in candidates]
    longest = max(held)
    if longest and not any(query.matches.get(view.url) == longest for view in kept):
        holder = candidates[held.index(longest)].url
        query.add_note(
            Reason.OVERLOADED, f"{holder} holds {longest} blocks of it, but has too much load"
        )
    return kept


def best(query: Query, candidates: Candidates, scores: Sequence[float]) -> Picked:
    """Pick the best score; at random among equals, so that gateways spread their requests."""
    highest = max(scores)
    count = scores.count(highest)
    if count == 1:
        return candidates[scores.index(highest)], Reason.CRITERION
    if count == len(candidates):
        return query.rng.choice(candidates), Reason.CHANCE
    equals = [view for view, score in zip(candidates, scores, strict=True) if score == highest]
    return query.rng.choice(equals), Reason.CHANCE


def by_affinity(query: Query, candidates: Candidates, scores: Sequence[float]) -> Picked:
    """Pick the best score, with prefix, placement or load as the reason."""
    view, reason = best(query, candidates, scores)
    if query.matches.get(view.url):
        return view, Reason.PREFIX
    if not query.place:
        return view, Reason.PROMPT_UNKNOWN
    if view.url == query.first_place:
        return view, Reason.SESSION if query.session else Reason.PLACED
    return view, reason


def in_turn(query: Query, candidates: Candidates, scores: Sequence[float]) -> Picked:
    """Pick each candidate in turn."""
    turn = query.memory.turn(query.request.model)
    return candidates[turn % len(candidates)], Reason.CRITERION


def at_random(query: Query, candidates: Candidates, scores: Sequence[float]) -> Picked:
    """Pick a candidate at random."""
    return query.rng.choice(candidates), Reason.CRITERION


def better_of_two(query: Query, candidates: Candidates, scores: Sequence[float]) -> Picked:
    """Pick the less loaded of two random candidates.

    Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001.
    """
    one, two = query.rng.sample(range(len(candidates)), 2)
    first, second = candidates[one], candidates[two]
    loads = share_in_use(first.live), share_in_use(second.live)
    return (first if loads[0] <= loads[1] else second), Reason.CRITERION


def by_weight(query: Query, candidates: Candidates, scores: Sequence[float]) -> Picked:
    """Pick at random with the scores as weights; uniformly if all are 0."""
    if not any(scores):
        return query.rng.choice(candidates), Reason.CHANCE
    return query.rng.choices(candidates, weights=scores)[0], Reason.CRITERION


def _cached(query: Query, view: EndpointView) -> str:
    held, blocks = query.matches.get(view.url, 0), len(query.prefix.blocks)
    source = "by its events" if query.memory.prefixes.is_exact(view.url) else "by requests sent"
    load = share_in_use(view.live)
    return f"holds {held} of {blocks} blocks of the prompt {source}, at load {load:.3f}"


def _soon(query: Query, view: EndpointView) -> str:
    (seconds,) = query.first_token_seconds((view,))
    return f"fastest, {query.uncached_tokens(view.url)} tokens to compute, in {seconds:.3f} s"


_REQUESTS, _KV = Signal.REQUESTS, Signal.KV_CACHE_USAGE
POLICIES: Mapping[RoutingPolicy, Policy] = MappingProxyType(
    {
        "LeastLoaded": Policy(
            best,
            lambda query, view: f"least loaded, at load {share_in_use(view.live):.3f}",
            scorers=((scorers.room, 1),),
            needs=(_REQUESTS,),
        ),
        "LeastRequests": Policy(
            best,
            lambda query, view: f"fewest requests, {view.live.others + view.live.in_flight}",
            scorers=((scorers.few_requests, 1),),
            needs=(_REQUESTS,),
        ),
        "LeastTokens": Policy(
            best,
            lambda query, view: f"fewest tokens in flight, {scorers.tokens_in_use(view.live)}",
            scorers=((scorers.few_tokens, 1),),
            needs=(Signal.TOKENS_IN_FLIGHT,),
        ),
        "DynamicWeighted": Policy(
            by_weight,
            lambda query, view: (
                f"drawn by weight, {200 * scorers.free_resources(query, (view,))[0]:.0f} of 200"
            ),
            scorers=((scorers.free_resources, 1),),
            needs=(_REQUESTS, _KV),
        ),
        "PrefixAffinity": Policy(
            by_affinity,
            _cached,
            filters=(under_bound,),
            scorers=((scorers.cached, 1), (scorers.headroom, 0.3), (scorers.placement, 0.6)),
            needs=(_REQUESTS,),
            remembers_prompts=True,
        ),
        "LatencyAware": Policy(
            best,
            _soon,
            filters=(within_slo,),
            scorers=((scorers.soon, 1),),
            needs=(_REQUESTS,),
            remembers_prompts=True,
            remembers_latency=True,
        ),
        "PowerOfTwoChoices": Policy(
            better_of_two,
            lambda query, view: f"the better of two, at load {share_in_use(view.live):.3f}",
            needs=(_REQUESTS,),
        ),
        "RoundRobin": Policy(in_turn, lambda query, view: "next in turn"),
        "Random": Policy(at_random, lambda query, view: "drawn at random"),
    }
)
