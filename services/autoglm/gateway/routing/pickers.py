"""Pickers: choose a candidate by its score. Pure except for the seeded `rng` of the query."""

from __future__ import annotations

from collections.abc import Sequence

from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.routing.scorers import share_in_use
from autoglm.gateway.routing.types import Candidates, Query, Reason

Picked = tuple[EndpointView, Reason]


def best(query: Query, candidates: Candidates, scores: Sequence[float]) -> Picked:
    """Pick the best score; at random among equals, so that gateways spread their requests."""
    highest = max(scores)
    if scores.count(highest) == 1:
        return candidates[scores.index(highest)], Reason.CRITERION
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
