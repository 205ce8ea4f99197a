"""Has Envoy send a call to an endpoint: the `Upstream` of the Envoy plane, for both wires.

Decides which endpoints Envoy can reach by itself and with which headers; the others, and calls that
Envoy has sent on to us, go through the gateway's own relay of that wire. Never picks an endpoint.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import islice

from msgspec.structs import replace

from autoglm.common import rpc
from autoglm.common.errors import AutoGLMError, NoReadyEndpoint
from autoglm.gateway.edges.rest_request import TIMEOUT_HEADER
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.gateway.envoy.config.names import DESTINATION_HEADER
from autoglm.gateway.envoy.exchange import Directions, End, Exchange
from autoglm.gateway.proxy.sse_transcript import REPLAY
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, Upstream, no_fallbacks
from autoglm.gateway.request.request import GatewayRequest, Response
from autoglm.validation.routing_hint import HINT_METADATA

_NO_BYTES: tuple[bytes, ...] = ()
_LATER_MILLISECONDS = 100
_TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
# Not for pods: what is this hop's business, and what would have pods answer in another encoding.
_KEPT_BACK = frozenset(
    (
        rpc.AUTHORIZATION,
        rpc.API_KEY,
        "accept-encoding",
        "cookie",
        "proxy-authorization",
        HINT_METADATA,
        rpc.PREFIX_SALT,
        rpc.CACHE_SALT,
        rpc.RESPONSE_ID,
        TIMEOUT_HEADER,
        REPLAY,
    )
)


class EnvoyUpstream:
    """`relay` is the gateway's own; `key` is for OpenAI servers, in place of the caller's.

    `fallbacks` is how many more endpoints other gateways' Envoys are told, for retries of theirs.
    """

    def __init__(self, relay: Upstream, key: UpstreamKey | None = None, fallbacks: int = 0) -> None:
        self._relay = relay
        self._fallbacks = fallbacks
        self._key = key or UpstreamKey()

    @asynccontextmanager
    async def __call__(
        self,
        call: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> AsyncIterator[Response]:
        exchange = call.exchange
        if isinstance(exchange, Exchange):
            outcome: End | GatewayRequest | None = exchange.taken
            if outcome is None:
                directions = self._directions(call, exchange, endpoint, headers, timeout, fallbacks)
                outcome = await exchange.send(directions)
                if isinstance(outcome, GatewayRequest) and directions.address:
                    raise _did_not_answer(endpoint)
            if isinstance(outcome, End):
                yield _reply(outcome, endpoint.plain_address(call.wire))
                return
            # Its body may have come only now.
            call = replace(call, payload=outcome.payload)
        async with self._relay(call, endpoint, headers, timeout) as reply:
            yield reply

    def _directions(
        self,
        call: GatewayRequest,
        exchange: Exchange,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks,
    ) -> Directions:
        address = endpoint.plain_address(call.wire)
        # Envoy takes the end of a connection for the end of an HTTP/1.0 response.
        is_ours = exchange.is_read or not address or endpoint.state.is_http10
        if not exchange.is_external_proxy and is_ours:
            return Directions(removed_headers=(DESTINATION_HEADER,))
        left = max(1, math.ceil(timeout * 1000))
        told = {DESTINATION_HEADER: address, **headers}
        if call.wire == "grpc":
            told["grpc-timeout"] = f"{left}m"
            # A little later than the route's own, which has the better words.
            left += _LATER_MILLISECONDS
        elif endpoint.endpoint.kind == "openai":
            told |= self._for_openai(call, endpoint)
        if exchange.is_external_proxy:
            told[DESTINATION_HEADER] = ",".join((address, *self._others(call, endpoint, fallbacks)))
        else:
            told[_TIMEOUT] = str(left)
        return Directions(address, told, _kept_back(call, exchange, told), timeout)

    def _others(
        self, call: GatewayRequest, endpoint: EndpointView, fallbacks: Fallbacks
    ) -> Iterable[str]:
        """Addresses that would take the very same request."""
        if not self._fallbacks:
            return ()
        kind = (endpoint.endpoint.kind, endpoint.endpoint.base)
        found = (
            view.plain_address(call.wire)
            for view in fallbacks()
            if (view.endpoint.kind, view.endpoint.base) == kind
        )
        return islice(found, self._fallbacks)

    def _for_openai(self, call: GatewayRequest, endpoint: EndpointView) -> Mapping[str, str]:
        base = endpoint.endpoint.base
        return dict(self._key.headers) | ({":path": base + call.target} if base else {})


def _kept_back(
    call: GatewayRequest, exchange: Exchange, told: Mapping[str, str]
) -> tuple[str, ...]:
    sent = _KEPT_BACK & exchange.request_headers
    return tuple(name for name in sent if name not in call.headers and name not in told)


def _did_not_answer(endpoint: EndpointView) -> RetryElsewhere:
    error = NoReadyEndpoint(f"{endpoint.url} did not answer; try again later")
    # A pod's load stream says at once when it has gone; others are asked every few seconds only.
    # Envoy does not say whether it was refused or lost its connection.
    return RetryElsewhere(error, gone=endpoint.endpoint.kind == "openai", refused=True)


def _reply(end: End, address: str) -> Response:
    return Response(
        _nothing(end.error),
        status=end.status,
        first_chunk=end.first_chunk,
        served_by_fallback=end.served not in ("", address),
    )


async def _nothing(error: AutoGLMError | None) -> AsyncIterator[bytes]:
    """Whoever reads it learns how the call has ended."""
    if error is not None:
        raise error
    for chunk in _NO_BYTES:
        yield chunk
