"""Which endpoint a call goes to. Pure: no lock, no await, no I/O; called by the relay.

Today's policy is least load: the endpoint with the smallest share of its capacity in use, ours in
flight counted at once; whoever has requests waiting counts as full. KV-cache use decides between
equals, chance between what is equal still.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from random import Random

from autoglm.common.errors import AutoGLMError, NoReadyEndpoint, Unimplemented
from autoglm.gateway.call import Call
from autoglm.gateway.endpoints import EndpointView, Live
from autoglm.gateway.snapshot import Snapshot

_RETRY_AFTER = 1.0
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to, and why there, in words for spans and logs."""

    endpoint: EndpointView
    why: str


def pick(
    call: Call,
    snapshot: Snapshot,
    now: float,
    rng: Random,
    exclude: Set[str] = frozenset(),
) -> Decision:
    """Raises NoReadyEndpoint. `exclude` holds URLs that failed this call already.

    Those are tried again only when nothing else is left and they are still routable.
    """
    model = snapshot.models.get(call.model)
    candidates = model.endpoints(call.wire) if model else ()
    if not candidates:
        raise _none_ready(call, snapshot, now)
    fresh = [view for view in candidates if view.url not in exclude] if exclude else candidates
    return _least_loaded(fresh or candidates, rng)


def share_in_use(live: Live) -> float:
    """Requests on the endpoint per request it can work on at once; over 1 where some wait."""
    return (live.others + live.in_flight) / live.capacity


def _least_loaded(
    candidates: tuple[EndpointView, ...] | list[EndpointView], rng: Random
) -> Decision:
    if len(candidates) == 1:
        return Decision(candidates[0], "the only one ready")
    scores = [
        (live.others + live.in_flight) / live.capacity + live.kv_penalty
        for live in [view.live for view in candidates]
    ]
    least = min(scores)
    best = [view for view, score in zip(candidates, scores, strict=True) if score == least]
    view = best[0] if len(best) == 1 else rng.choice(best)
    return Decision(view, f"least loaded of {len(candidates)}, at {share_in_use(view.live):.3f}")


def _none_ready(call: Call, snapshot: Snapshot, now: float) -> AutoGLMError:
    model = snapshot.models.get(call.model)
    resource = model.resource if model else None
    allowed = (None, resource.key if resource else None)
    serving = [
        view
        for view in snapshot.endpoints
        if _serves(view, call.model) and view.endpoint.origin in allowed
    ]
    if call.wire == "grpc" and serving and all(v.endpoint.kind == "openai" for v in serving):
        return Unimplemented(f"{call.model!r} is served over REST only; ask on the HTTP port")
    states = ", ".join(_describe(view, now) for view in serving[:_SHOWN])
    retry_after = _RETRY_AFTER
    if resource is not None and not states:
        states, retry_after = resource.state, resource.retry_after
    message = f"no endpoint of {call.model!r} is ready: {states or 'there is none'}"
    return NoReadyEndpoint(f"{message}; try again later", retry_after=retry_after)


def _serves(view: EndpointView, name: str) -> bool:
    return any(name == model.name or name in model.aliases for model in view.state.models)


def _describe(view: EndpointView, now: float) -> str:
    state = view.state
    why = f" ({state.why})" if state.why else ""
    return f"{view.url} {state.phase} for {now - state.since:.0f} s{why}"
