"""Chooses the endpoint for a request. Pure: no lock, no await, no I/O.

`pick` finds the candidates, and `decide` runs the policy of the model's resource, or the gateway's
default: filters, scorers, picker.

A model with too many endpoints to score all of them is sampled: the endpoints with the longest
prefixes of the prompt, those next to the conversation's position on the ring (the same on all
gateways), and 48 at random, of which one is among the best tenth with a probability of 99.4 %. So a
decision costs the same for 200 endpoints and for 20,000.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import islice, repeat
from operator import add, mul
from random import Random

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.common.errors import AutoGLMError, NoReadyEndpoint, Unimplemented
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.consistent_hash import Ring
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.policies import POLICIES
from autoglm.gateway.routing.types import (
    Candidates,
    Decision,
    DecisionTrace,
    Policy,
    Query,
    Reason,
)

MOST = 128
"""The most endpoints that are scored for a request."""
_HOLDERS, _AROUND, _RANDOM = 16, 16, 48
_RETRY_AFTER = 1.0
_SHOWN = 3


def pick(
    request: GatewayRequest,
    snapshot: Snapshot,
    now: float,
    rng: Random,
    default: RoutingPolicy,
    exclude: Set[str] = frozenset(),
    memory: Memory | None = None,
) -> Decision:
    """Return the decision for the request. Raises NoReadyEndpoint or Unimplemented.

    `default` is the policy if the model's resource names none. `exclude` holds the URLs that failed
    this request already; they are used again only if no other endpoint is routable.
    """
    model = snapshot.models.get(request.model)
    candidates: Candidates = model.endpoints(request.wire) if model else ()
    if model is None or not candidates:
        raise _none_ready(request, snapshot, now)
    if request.only:
        candidates = [view for view in candidates if view.url == request.only]
        if not candidates:
            raise NoReadyEndpoint(
                "the pod that stored the response accepts no requests now; try again later",
                retry_after=_RETRY_AFTER,
            )
    if request.allows is not None:
        allows, wire = request.allows, request.wire
        reachable = [v for v in candidates if (at := v.plain_address(wire)) and allows(at)]
        if not reachable:
            raise NoReadyEndpoint(
                f"the proxy in front can reach none of the {len(candidates)} ready endpoints of "
                f"{request.model!r}: they are behind TLS, have names instead of addresses, or are "
                "not among those that it allows; try again later",
                retry_after=_RETRY_AFTER,
            )
        candidates = reachable
    routing = model.rules.routing
    query = Query(request, now, rng, memory or Memory(), routing.slo.first_token_seconds)
    policy = routing.policy or default
    if len(candidates) > MOST and POLICIES[policy].scorers:
        candidates = sample(query, POLICIES[policy], query.memory.rings.of(candidates))
    if exclude:
        candidates = [view for view in candidates if view.url not in exclude] or candidates
    return decide(policy, candidates, query)


def sample(query: Query, policy: Policy, ring: Ring) -> list[EndpointView]:
    """Return a sample of the ring's endpoints, each once; restricts the query's matches to it."""
    found: dict[str, EndpointView] = {}
    if policy.remembers_prompts:
        by_url, holders = ring.by_url, query.holders.deepest(_HOLDERS)
        query.around = ring.around(query.place, _AROUND) if query.place else ()
        found = {url: by_url[url] for url in (*holders, *query.around) if url in by_url}
    drawn = query.rng.choices(ring.views, k=_RANDOM)
    found |= {view.url: view for view in drawn}
    sampled = list(islice(found.values(), MOST))
    if policy.remembers_prompts:
        query.restrict_to(sampled)
    return sampled


def decide(name: RoutingPolicy, candidates: Candidates, query: Query) -> Decision:
    """Return the policy's choice among at least one candidate."""
    policy = POLICIES[name]
    scores: Sequence[float] = ()
    if len(candidates) == 1:
        view, why, reason = candidates[0], "the only one ready", Reason.ONLY
    else:
        for narrow in policy.filters:
            candidates = narrow(query, candidates)
        scores = _scores(policy, query, candidates)
        if len(candidates) == 1:
            view, reason = candidates[0], Reason.CRITERION
        else:
            view, reason = policy.picker(query, candidates, scores)
        why = f"{policy.words(query, view)}, of {len(candidates)} candidates"
        absent = view.live.load.missing
        if absent and (missing := [signal for signal in policy.needs if signal in absent]):
            text = f"it reports no {' nor '.join(missing)}: own requests counted"
            query.add_note(Reason.SIGNAL_MISSING, text)
        if query.notes:
            reason = query.notes[0][0]
            why = "; ".join((why, *(text for _, text in query.notes)))
    return Decision(
        view,
        why,
        name,
        reason,
        DecisionTrace(candidates, scores),
        known=query.longest if policy.remembers_prompts else None,
        uncached_tokens=query.uncached_tokens(view.url) if policy.remembers_latency else None,
        is_exact=query.memory.prefixes.is_exact(view.url),
    )


def _scores(policy: Policy, query: Query, candidates: Candidates) -> Sequence[float]:
    """Return the weighted sum of the policy's scores for each candidate; empty without scorers."""
    if not policy.scorers:
        return ()
    if len(policy.scorers) == 1:
        return policy.scorers[0][0](query, candidates) or [0.0] * len(candidates)
    total = [0.0] * len(candidates)
    for score, weight in policy.scorers:
        if scores := score(query, candidates):
            total = list(map(add, total, map(mul, scores, repeat(weight))))
    return total


def _none_ready(request: GatewayRequest, snapshot: Snapshot, now: float) -> AutoGLMError:
    """Return the error for a model without a usable endpoint, with the states of its endpoints."""
    model = snapshot.models.get(request.model)
    resource = model.resource if model else None
    allowed = (None, resource.key if resource else None)
    serving = [
        view
        for view in snapshot.endpoints
        if view.endpoint.origin in allowed
        and any(request.model == m.name or request.model in m.aliases for m in view.state.models)
    ]
    if request.wire == "grpc" and serving and all(v.endpoint.kind == "openai" for v in serving):
        return Unimplemented(f"{request.model!r} is served over REST only; use the HTTP port")
    states = ", ".join(
        f"{view.url} {view.state.phase} for {now - view.state.since:.0f} s"
        + (f" ({view.state.why})" if view.state.why else "")
        for view in serving[:_SHOWN]
    )
    retry_after = _RETRY_AFTER
    if resource is not None and not states:
        states, retry_after = resource.state, resource.retry_after
    message = f"no endpoint of {request.model!r} is ready: {states or 'there is none'}"
    return NoReadyEndpoint(f"{message}; try again later", retry_after=retry_after)
