"""The `Upstream` of the Envoy data plane, for both wires: Envoy sends a request to an endpoint.

Decides which endpoints Envoy can reach by itself and sets the headers; requests to others, and
those that Envoy forwarded to the gateway, use the embedded upstream of that wire.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice

from msgspec.structs import replace

from autoglm.common import rpc
from autoglm.common.errors import AutoGLMError, NoReadyEndpoint
from autoglm.gateway.edges.rest_request import TIMEOUT_HEADER
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.gateway.envoy.config import DESTINATION_HEADER, UPSTREAM_TIMEOUT
from autoglm.gateway.envoy.exchange import Directions, End, Exchange
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, Upstream, no_fallbacks
from autoglm.gateway.request.request import GatewayRequest, Response, Write
from autoglm.validation.openai_stream import REPLAY_HEADER
from autoglm.validation.routing_hint import HINT_METADATA

_LATER_MILLISECONDS = 100
# Headers not forwarded to pods: hop-by-hop ones, and those that change a response's encoding.
_REMOVED = frozenset(
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
        REPLAY_HEADER,
    )
)
# Envoy still routes by these: to the endpoint, or back to the gateway if that does not respond.
_ROUTING = frozenset((rpc.CALL_HEADER, DESTINATION_HEADER))


class EnvoyUpstream:
    """Sends requests by Envoy. `relay` is the embedded upstream of the wire.

    `key` is the key of OpenAI servers, instead of the caller's credential; `fallbacks` is the
    number of further endpoints sent to Envoys of other gateways, for their retries.
    """

    def __init__(self, relay: Upstream, key: UpstreamKey | None = None, fallbacks: int = 0) -> None:
        self._relay = relay
        self._fallbacks = fallbacks
        self._key = key or UpstreamKey()

    async def __call__(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> Response:
        exchange = request.exchange
        if isinstance(exchange, Exchange):
            outcome: End | GatewayRequest | None = exchange.taken
            if outcome is None:
                directions = self._directions(
                    request, exchange, endpoint, headers, timeout, fallbacks
                )
                outcome = await exchange.send(directions)
                if isinstance(outcome, GatewayRequest) and directions.address:
                    error = NoReadyEndpoint(f"{endpoint.url} did not respond; try again later")
                    # A pod's load stream ends at once if it is gone; other servers are polled every
                    # few seconds. Envoy does not report whether the connection was refused or lost.
                    is_openai = endpoint.endpoint.kind == "openai"
                    raise RetryElsewhere(error, gone=is_openai, refused=True)
            if isinstance(outcome, End):
                return Response(
                    partial(_ended, outcome.error),
                    status=outcome.status,
                    first_chunk=outcome.first_chunk,
                    served_by_fallback=outcome.served != ""
                    and outcome.served != endpoint.plain_address(request.wire),
                )
            # Its body may have arrived only now.
            request = replace(request, payload=outcome.payload)
        return await self._relay(request, endpoint, headers, timeout)

    def _directions(
        self,
        request: GatewayRequest,
        exchange: Exchange,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks,
    ) -> Directions:
        address = endpoint.plain_address(request.wire)
        # Envoy does not detect a truncated HTTP/1.0 response; the picker cannot change the path.
        is_own = endpoint.state.is_http10 or bool(endpoint.endpoint.base)
        is_own = is_own or exchange.is_read or not address
        if not exchange.is_external_proxy and is_own:
            return Directions(removed_headers=(DESTINATION_HEADER,))
        left = max(1, math.ceil(timeout * 1000))
        added = {DESTINATION_HEADER: address, **headers}
        if request.wire == "grpc":
            added["grpc-timeout"] = f"{left}m"
            # A little later than the route's own timeout, which has the better message.
            left += _LATER_MILLISECONDS
        elif endpoint.endpoint.kind == "openai":
            added |= self._key.headers
            if base := endpoint.endpoint.base:
                added[":path"] = base + request.target
        if exchange.is_external_proxy:
            others = self._others(request, endpoint, fallbacks)
            added[DESTINATION_HEADER] = ",".join((address, *others))
        else:
            added[UPSTREAM_TIMEOUT] = str(left)
        sent = exchange.request_headers
        removed = {name for name in sent & _REMOVED if name not in request.headers}
        if endpoint.endpoint.kind == "openai":
            removed |= {name for name in sent if rpc.is_internal_header(name)} - _ROUTING
        return Directions(address, added, tuple(sorted(removed - added.keys())), timeout)

    def _others(
        self, request: GatewayRequest, endpoint: EndpointView, fallbacks: Fallbacks
    ) -> Iterable[str]:
        """Return addresses of endpoints that accept the same request unchanged."""
        if not self._fallbacks:
            return ()
        kind = (endpoint.endpoint.kind, endpoint.endpoint.base)
        found = (
            view.plain_address(request.wire)
            for view in fallbacks()
            if (view.endpoint.kind, view.endpoint.base) == kind
        )
        return islice(found, self._fallbacks)


async def _ended(error: AutoGLMError | None, write: Write) -> None:
    """Forward nothing: Envoy has done so. Raises the error with which the request ended."""
    if error is not None:
        raise error
