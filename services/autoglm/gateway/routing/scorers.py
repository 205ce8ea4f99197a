"""Measures of candidates, from 0 to 1; 1 is best. Pure.

Loads have no upper bound, so a load x scores 1 / (1 + x): the order is kept, whatever the size.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoglm.gateway.endpoints.endpoint import Live
from autoglm.gateway.routing.affinity import draws
from autoglm.gateway.routing.contracts import Candidates, Query

# Of the two endpoints that a conversation is placed on.
_PLACES = (1.0, 0.5)
# Tokens that weigh as much as one request per slot: a long prompt with its answer.
_TOKENS = 8192


def share_in_use(live: Live) -> float:
    """Requests on the endpoint per request it can work on at once; over 1 where some wait."""
    return (live.others + live.in_flight) / live.capacity


def shares_in_use(candidates: Candidates) -> list[float]:
    lives = [view.live for view in candidates]
    return [(live.others + live.in_flight) / live.capacity for live in lives]


def tokens_in_use(live: Live) -> int:
    """Tokens of unfinished requests: ours now, and the others' when they were last reported."""
    return live.other_tokens + live.tokens


def room(query: Query, candidates: Candidates) -> Sequence[float]:
    """By share of capacity in use; KV-cache use decides between equals."""
    return [
        1 / (1 + (live.others + live.in_flight) / live.capacity + live.kv_penalty)
        for live in [view.live for view in candidates]
    ]


def few_requests(query: Query, candidates: Candidates) -> Sequence[float]:
    """By number of requests, whatever the endpoint's capacity."""
    return [1 / (1 + live.others + live.in_flight) for live in [view.live for view in candidates]]


def few_tokens(query: Query, candidates: Candidates) -> Sequence[float]:
    return [1 / (1 + tokens_in_use(view.live) / _TOKENS) for view in candidates]


def free_resources(query: Query, candidates: Candidates) -> Sequence[float]:
    """Weight = (100 - load) + free accelerator memory, both in percent, as a share of 200.

    The engine takes its accelerator's memory when it starts and keeps its KV cache in it, so what
    is free is the part of that cache that no request holds.
    """
    return [
        (1 - min(1.0, share_in_use(view.live)) + 1 - min(1.0, view.live.load.kv_cache_usage)) / 2
        for view in candidates
    ]


def cached(query: Query, candidates: Candidates) -> Sequence[float]:
    """Share of the prompt's blocks that the endpoint holds."""
    matches, blocks = query.matches, len(query.prefix.blocks)
    if not matches:
        return [0.0] * len(candidates)
    return [matches.get(view.url, 0) / blocks for view in candidates]


def headroom(query: Query, candidates: Candidates) -> Sequence[float]:
    """1 for the least loaded candidate, 0 for the most loaded."""
    shares = shares_in_use(candidates)
    least, most = min(shares), max(shares)
    if least == most:
        return [1.0] * len(candidates)
    return [(most - share) / (most - least) for share in shares]


def placement(query: Query, candidates: Candidates) -> Sequence[float]:
    """1 for the endpoint that this conversation or session has its place on, a half for the next.

    Two, so that there is a choice by load (Nasir et al., The Power of Both Choices, 2015). Less
    where prompts are seldom seen again, so that nothing but load places those.
    """
    scores = [0.0] * len(candidates)
    if query.place:
        trust = query.trust
        urls = [view.url for view in candidates]
        numbers = draws(query.place, urls)
        if query.around:
            # The random ones of a sample are other ones on each gateway.
            numbers = [n if u in query.around else 0 for n, u in zip(numbers, urls, strict=True)]
        for score in _PLACES[: len(candidates)]:
            first = numbers.index(max(numbers))
            scores[first], numbers[first] = score * trust, -1
            query.first_place = query.first_place or candidates[first].url
    return scores


def soon(query: Query, candidates: Candidates) -> Sequence[float]:
    """By the predicted time to the first token."""
    return [1 / (1 + seconds) for seconds in query.first_token_seconds(candidates)]
