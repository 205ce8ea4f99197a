"""Narrow the candidates, never to none; tell the query where a wish could not be met. Pure."""

from __future__ import annotations

from autoglm.gateway.routing.contracts import Candidates, Query, Reason
from autoglm.gateway.routing.scorers import shares_in_use

# Above the mean load of all candidates by so much, nobody gets more for what is in its cache:
# consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016), on measured loads.
BOUND_FACTOR = 1.25
BOUND_SHARE = 0.05
# More than any share that leaves room for one request, up to 1,000 at once.
_FULL = 0.999


def load_bound(candidates: Candidates, shares: list[float]) -> float:
    """The share of capacity in use up to which affinity may fill an endpoint.

    While anybody has a free place in its batch nobody waits, and up to there a place costs less
    than a long beginning computed anew elsewhere. Who tells no batch may be full at any load.
    """
    bound = BOUND_FACTOR * sum(shares) / len(shares) + BOUND_SHARE
    if min(shares) >= 1:
        return bound
    if all(view.live.load.max_num_seqs for view in candidates):
        return _FULL
    return min(bound, _FULL)


def within_slo(query: Query, candidates: Candidates) -> Candidates:
    """Those that are likely to answer as soon as wished; all where nobody is, and it is told."""
    if query.memory.latency.fastest(query.now) is None:
        query.tell(Reason.LATENCY_UNKNOWN, "nobody has answered lately: the least work decides")
        return candidates
    if query.slo_seconds is None:
        return candidates
    wanted, seconds = query.slo_seconds, query.first_token_seconds(candidates)
    kept = [view for view, time in zip(candidates, seconds, strict=True) if time <= wanted]
    if not kept:
        query.tell(Reason.SLO_MISSED, f"nobody is likely to answer within {wanted:g} s")
    return kept or candidates


def under_bound(query: Query, candidates: Candidates) -> Candidates:
    """Those that are not overloaded in comparison; load overrides affinity."""
    shares = shares_in_use(candidates)
    bound = load_bound(candidates, shares)
    if max(shares) <= bound:
        return candidates
    kept = [view for view, share in zip(candidates, shares, strict=True) if share <= bound]
    held = [query.matches.get(view.url, 0) for view in candidates]
    longest = max(held)
    if longest and not any(query.matches.get(view.url) == longest for view in kept):
        holder = candidates[held.index(longest)].url
        query.tell(Reason.OVERLOADED, f"{holder} holds {longest} blocks of it, and too much load")
    return kept
