"""Chooses the endpoint for a request. Pure: no lock, no await, no I/O.

Runs the policy of the model's resource, or the gateway's default: filters, scorers, picker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from random import Random

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.common.errors import AutoGLMError, NoReadyEndpoint, Unimplemented
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.policies import POLICIES
from autoglm.gateway.routing.sample import MOST, sample
from autoglm.gateway.routing.types import (
    Candidates,
    Decision,
    DecisionTrace,
    Policy,
    Query,
    Reason,
)

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
    if not candidates:
        raise _none_ready(request, snapshot, now)
    if request.only:
        candidates = _one(request, candidates)
    if request.allows is not None:
        candidates = _allowed(request, request.allows, candidates)
    routing = snapshot.rules_of(request.model).routing
    query = Query(request, now, rng, memory or Memory(), routing.slo.first_token_seconds)
    policy = routing.policy or default
    if len(candidates) > MOST and POLICIES[policy].scorers:
        candidates = sample(query, POLICIES[policy], query.memory.rings.of(candidates))
    if exclude:
        candidates = [view for view in candidates if view.url not in exclude] or candidates
    return decide(policy, candidates, query)


def decide(name: RoutingPolicy, candidates: Candidates, query: Query) -> Decision:
    """Return the policy's choice among at least one candidate."""
    policy = POLICIES[name]
    if len(candidates) == 1:
        view = candidates[0]
        return _decision(
            name, query, view, "the only one ready", Reason.ONLY, DecisionTrace(candidates)
        )
    for narrow in policy.filters:
        candidates = narrow(query, candidates)
    scores = _scores(policy, query, candidates)
    view, reason = _pick(policy, query, candidates, scores)
    why = f"{policy.words(query, view)}, of {len(candidates)}"
    if view.live.load.missing:
        _note_missing(policy, query, view)
    if query.notes:
        reason = query.notes[0][0]
        why = "; ".join((why, *(text for _, text in query.notes)))
    return _decision(name, query, view, why, reason, DecisionTrace(candidates, scores))


def _allowed(
    request: GatewayRequest, allows: Callable[[str], bool], candidates: Candidates
) -> Candidates:
    """Return the candidates that the proxy in front can reach. Raises NoReadyEndpoint for none."""
    kept = [v for v in candidates if (address := v.plain_address(request.wire)) and allows(address)]
    if not kept:
        raise NoReadyEndpoint(
            f"the proxy in front can reach none of the {len(candidates)} ready endpoints of "
            f"{request.model!r}: they are behind TLS, have names instead of addresses, or are not "
            "among those that it allows; try again later",
            retry_after=_RETRY_AFTER,
        )
    return kept


def _one(request: GatewayRequest, candidates: Candidates) -> Candidates:
    kept = [view for view in candidates if view.url == request.only]
    if not kept:
        raise NoReadyEndpoint(
            "the pod that stored the response accepts no requests now; try again later",
            retry_after=_RETRY_AFTER,
        )
    return kept


def _decision(
    name: RoutingPolicy,
    query: Query,
    view: EndpointView,
    why: str,
    reason: Reason,
    trail: DecisionTrace,
) -> Decision:
    policy = POLICIES[name]
    known = query.longest if policy.remembers_prompts else None
    uncached = query.uncached_tokens(view.url) if policy.remembers_latency else None
    is_exact = query.memory.prefixes.is_exact(view.url)
    return Decision(view, why, name, reason, trail, known, uncached, is_exact)


def _scores(policy: Policy, query: Query, candidates: Candidates) -> Sequence[float]:
    if len(policy.scorers) == 1:
        return policy.scorers[0][0](query, candidates)
    columns = [[weight * x for x in score(query, candidates)] for score, weight in policy.scorers]
    return [sum(row) for row in zip(*columns, strict=True)]


def _pick(
    policy: Policy, query: Query, candidates: Candidates, scores: Sequence[float]
) -> tuple[EndpointView, Reason]:
    if len(candidates) == 1:
        return candidates[0], Reason.CRITERION
    return policy.picker(query, candidates, scores)


def _note_missing(policy: Policy, query: Query, view: EndpointView) -> None:
    missing = [signal for signal in policy.needs if signal in view.live.load.missing]
    if missing:
        query.add_note(
            Reason.SIGNAL_MISSING, f"it reports no {' nor '.join(missing)}: own requests counted"
        )


def _none_ready(request: GatewayRequest, snapshot: Snapshot, now: float) -> AutoGLMError:
    model = snapshot.models.get(request.model)
    resource = model.resource if model else None
    allowed = (None, resource.key if resource else None)
    serving = [
        view
        for view in snapshot.endpoints
        if _serves(view, request.model) and view.endpoint.origin in allowed
    ]
    if request.wire == "grpc" and serving and all(v.endpoint.kind == "openai" for v in serving):
        return Unimplemented(f"{request.model!r} is served over REST only; use the HTTP port")
    states = ", ".join(_describe(view, now) for view in serving[:_SHOWN])
    retry_after = _RETRY_AFTER
    if resource is not None and not states:
        states, retry_after = resource.state, resource.retry_after
    message = f"no endpoint of {request.model!r} is ready: {states or 'there is none'}"
    return NoReadyEndpoint(f"{message}; try again later", retry_after=retry_after)


def _serves(view: EndpointView, name: str) -> bool:
    return any(name == model.name or name in model.aliases for model in view.state.models)


def _describe(view: EndpointView, now: float) -> str:
    state = view.state
    why = f" ({state.why})" if state.why else ""
    return f"{view.url} {state.phase} for {now - state.since:.0f} s{why}"
