"""Scorers: score candidates from 0 to 1; 1 is best. Pure.

Loads have no upper bound, so a load x scores 1 / (1 + x), which keeps the order.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoglm.gateway.endpoints.endpoint import Live
from autoglm.gateway.routing.consistent_hash import draws
from autoglm.gateway.routing.types import Candidates, Query

# The scores of the two endpoints that a conversation hashes to.
_PLACES = (1.0, 0.5)
# Tokens that weigh as much as one request per slot: a long prompt with its completion.
_TOKENS = 8192


def share_in_use(live: Live) -> float:
    """Return the endpoint's requests divided by its capacity; over 1 if requests wait."""
    return (live.others + live.in_flight) / live.capacity


def tokens_in_use(live: Live) -> int:
    """Return the tokens of requests in flight: own ones now, others as of the last load report."""
    return live.other_tokens + live.tokens


def room(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score by share of capacity in use; KV-cache use decides between equals."""
    return [
        1 / (1 + (live.others + live.in_flight) / live.capacity + live.kv_penalty)
        for live in [view.live for view in candidates]
    ]


def few_requests(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score by number of requests, whatever the endpoint's capacity."""
    return [1 / (1 + live.others + live.in_flight) for live in [view.live for view in candidates]]


def few_tokens(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score by tokens in flight."""
    return [1 / (1 + tokens_in_use(view.live) / _TOKENS) for view in candidates]


def free_resources(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score (100 - load) + free accelerator memory, both in percent, as a share of 200.

    The engine allocates its accelerator's memory at start and keeps the KV cache in it, so the free
    memory is the part of that cache that no request holds.
    """
    return [
        (1 - min(1.0, share_in_use(view.live)) + 1 - min(1.0, view.live.load.kv_cache_usage)) / 2
        for view in candidates
    ]


def cached(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score by the share of the prompt's blocks that the endpoint holds."""
    matches, blocks = query.matches, len(query.prefix.blocks)
    if not matches:
        return ()
    return [matches.get(view.url, 0) / blocks for view in candidates]


def headroom(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score 1 for the least loaded candidate, 0 for the most loaded."""
    shares = query.shares_in_use(candidates)
    least, most = min(shares), max(shares)
    if least == most:
        return [1.0] * len(candidates)
    range_ = most - least
    return [(most - share) / range_ for share in shares]


def placement(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score 1 for the endpoint that the conversation or session hashes to, 0.5 for the second.

    Two, so that load can decide (Nasir et al., The Power of Both Choices, 2015). Scores are lower
    for models whose prompts are rarely seen again, so that load alone places those.
    """
    place = query.place
    if not place:
        return ()
    scores = [0.0] * len(candidates)
    urls, trust = [view.url for view in candidates], query.trust
    # The random part of a sample differs between gateways.
    known = set(urls)
    placed = [url for url in query.around if url in known] if query.around else urls
    numbers = draws(place, placed)
    for score in _PLACES[: len(placed)]:
        first = numbers.index(max(numbers))
        scores[urls.index(placed[first])], numbers[first] = score * trust, -1
        query.first_place = query.first_place or placed[first]
    return scores


def soon(query: Query, candidates: Candidates) -> Sequence[float]:
    """Score by the predicted time to the first token."""
    return [1 / (1 + seconds) for seconds in query.first_token_seconds(candidates)]
