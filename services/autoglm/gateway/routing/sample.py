"""Samples the candidates of a model with too many endpoints to score all of them. Pure.

A sample has the endpoints with the longest prefixes of the prompt, those next to the conversation's
position on the ring (the same on all gateways), and 48 at random, of which one is among the best
tenth with a probability of 99.4 %. So a decision costs the same for 200 endpoints and for 20,000.
"""

from __future__ import annotations

from itertools import islice

from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.routing.rings import Ring
from autoglm.gateway.routing.types import Policy, Query

MOST = 128
_HOLDERS, _AROUND, _RANDOM = 16, 16, 48


def sample(query: Query, policy: Policy, ring: Ring) -> list[EndpointView]:
    """Return a sample of the ring's endpoints, each once; restricts the query's matches to it."""
    found: dict[str, EndpointView] = {}
    if policy.remembers_prompts:
        by_url, holders = ring.by_url, query.holders.deepest(_HOLDERS)
        query.around = ring.around(query.place, _AROUND) if query.place else ()
        found = {url: by_url[url] for url in (*holders, *query.around) if url in by_url}
    for view in query.rng.choices(ring.views, k=_RANDOM):
        found[view.url] = view
    sampled = list(islice(found.values(), MOST))
    if policy.remembers_prompts:
        query.restrict_to(sampled)
    return sampled
