"""Timeouts of a request: a resource's `spec.routing.timeouts`, else the gateway's. Pure.

A request ends by its deadline, which `bounded` may bring forward. The timeouts for the first token
and between chunks apply to streams whose chunks pass through this process: no other response shows
either. The proxy's attempts apply them; what is late is retried on another endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from autoglm.api.spec.traffic import Timeouts
from autoglm.common.errors import DeadlineExceeded
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled
from autoglm.gateway.request.request import GatewayRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one endpoint may keep a stream waiting, in seconds; None is no limit."""

    first_token_seconds: float | None = None
    chunk_seconds: float | None = None


def bounded(request: GatewayRequest, timeouts: Timeouts) -> GatewayRequest:
    """Returns the request with the earlier of its own deadline and the resource's."""
    total = timeouts.total_seconds
    if total is None or request.deadline <= request.started + total:
        return request
    return replace(request, deadline=request.started + total)


def limits_of(request: GatewayRequest, timeouts: Timeouts, default: Limits) -> Limits:
    if request.info is None or not request.info.streaming or not request.exchange.has_chunks:
        return Limits()
    first, chunk = timeouts.first_token_seconds, timeouts.chunk_seconds
    return Limits(
        default.first_token_seconds if first is None else first,
        default.chunk_seconds if chunk is None else chunk,
    )


def no_first_token(request: GatewayRequest, seconds: float) -> RetryElsewhere:
    why = f"no first token of {request.model!r} within {seconds:g} s"
    late = DeadlineExceeded(f"{why}; send the request again, or raise the limit")
    return RetryElsewhere(late, elsewhere_only=True)


def no_chunk(request: GatewayRequest, seconds: float) -> Stalled:
    why = f"{request.model!r} sent no chunk for {seconds:g} s, so the response is incomplete"
    return Stalled(DeadlineExceeded(f"{why}; send the request again, or raise the limit"))
