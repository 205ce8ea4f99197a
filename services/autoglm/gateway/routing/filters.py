"""Filters: narrow the candidates, never to none, and note objectives that cannot be met. Pure."""

from __future__ import annotations

from autoglm.gateway.routing.scorers import shares_in_use
from autoglm.gateway.routing.types import Candidates, Query, Reason

# An endpoint with this much more than the mean load gets no more requests for its cached prefixes:
# consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016), on measured loads.
BOUND_FACTOR = 1.25
BOUND_SHARE = 0.05
# Above every share that leaves room for one request, for up to 1,000 at once.
_FULL = 0.999


def load_bound(candidates: Candidates, shares: list[float]) -> float:
    """Return the share of capacity in use up to which affinity may fill an endpoint.

    While any endpoint has a free slot in its batch, no request waits, and filling a batch costs
    less than recomputing a long prefix elsewhere. An endpoint that reports no batch size may be
    full at any load.
    """
    bound = BOUND_FACTOR * sum(shares) / len(shares) + BOUND_SHARE
    if min(shares) >= 1:
        return bound
    if all(view.live.load.max_num_seqs for view in candidates):
        return _FULL
    return min(bound, _FULL)


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
    shares = shares_in_use(candidates)
    bound = load_bound(candidates, shares)
    if max(shares) <= bound:
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
