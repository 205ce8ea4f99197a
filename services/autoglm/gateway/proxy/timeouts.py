"""How long a call may take: a resource's `spec.routing.timeouts`, else the gateway's. Pure.

The whole of a call ends by its deadline, which `bounded` brings forward. The first token and the
silence between chunks are watched for streams only: of an answer in one piece neither can be seen,
nor of one that Envoy moves.
The relay's attempts do the watching; what is late is tried elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from autoglm.common.errors import DeadlineExceeded
from autoglm.gateway.endpoints.deployments import Rules
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled
from autoglm.gateway.request.request import GatewayRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one endpoint may keep a stream waiting, in seconds; None is no limit."""

    first_token_seconds: float | None = None
    chunk_seconds: float | None = None


def bounded(call: GatewayRequest, rules: Rules) -> GatewayRequest:
    """The call with the earlier of its own deadline and the resource's."""
    total = rules.total_seconds
    if total is None or call.deadline <= call.started + total:
        return call
    return replace(call, deadline=call.started + total)


def limits_of(call: GatewayRequest, rules: Rules | None, default: Limits) -> Limits:
    if call.info is None or not call.info.streaming or call.exchange is not None:
        return Limits()
    if rules is None:
        return default
    first, chunk = rules.first_token_seconds, rules.chunk_seconds
    return Limits(
        default.first_token_seconds if first is None else first,
        default.chunk_seconds if chunk is None else chunk,
    )


def no_first_token(call: GatewayRequest, seconds: float) -> RetryElsewhere:
    why = f"no first token of {call.model!r} within {seconds:g} s"
    late = DeadlineExceeded(f"{why}; ask again, or raise the limit")
    return RetryElsewhere(late, elsewhere_only=True)


def no_chunk(call: GatewayRequest, seconds: float) -> Stalled:
    why = f"{call.model!r} sent no chunk for {seconds:g} s, so the answer is incomplete"
    return Stalled(DeadlineExceeded(f"{why}; ask again, or raise the limit"))
