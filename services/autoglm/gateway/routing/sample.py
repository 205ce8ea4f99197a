"""Who is looked at where there are too many endpoints to look at all of them.

Those that hold the longest beginnings of the prompt, those around the conversation's place (the
same on all gateways), and some at random: of 48, one is among the best tenth with a chance of
99.4 %. So a decision costs the same for 200 endpoints and for 20,000. Pure; called by `decide`.
"""

from __future__ import annotations

from itertools import islice

from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.routing.contracts import Policy, Query
from autoglm.gateway.routing.rings import Ring

MOST = 128
_HOLDERS, _AROUND, _RANDOM = 16, 16, 48


def sample(query: Query, policy: Policy, ring: Ring) -> list[EndpointView]:
    """Some of the ring's endpoints, each once."""
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
