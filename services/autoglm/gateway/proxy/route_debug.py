"""Returns the decision trace of a request with the header `x-autoglm-debug`.

With `route` the response has the decision in `x-autoglm-route` (a header of REST, a trailer of
gRPC); with `explain` the decision is the response, and no pod gets the request. Both show addresses
and cached prefixes, so they need role Admin, unless the gateway allows all callers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from msgspec.structs import replace

from autoglm.common.errors import InvalidRequest, PermissionDenied
from autoglm.common.rpc import DEBUG_HEADER
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.principal import Role
from autoglm.gateway.request.request import (
    Deliver,
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
    Trailers,
    whole,
)
from autoglm.gateway.routing import Decision, Router
from autoglm.gateway.routing.router import explain

ROUTE_HEADER = "x-autoglm-route"
_WANTED = ("route", "explain")
# Servers and proxies take some 8 KiB of headers.
_MOST_IN_HEADER, _MOST_IN_BODY = 8, 256


class RouteDebug:
    """The `Handler` of requests with the header, before `proxy`. `is_open` allows all callers."""

    def __init__(
        self,
        proxy: Handler,
        router: Router,
        snapshot: Callable[[], Snapshot],
        *,
        is_open: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proxy = proxy
        self._router = router
        self._snapshot = snapshot
        self._is_open = is_open
        self._clock = clock

    async def __call__(
        self, request: GatewayRequest, record: RequestRecord, deliver: Deliver
    ) -> None:
        self._check(request)
        if request.debug == "explain":
            await deliver(self._explained(request))
            return

        async def with_trace(response: Response) -> None:
            await deliver(self._traced(request, record, response))

        await self._proxy(request, record, with_trace)

    def _check(self, request: GatewayRequest) -> None:
        if not self._is_open and Role.ADMIN not in request.principal.roles:
            raise PermissionDenied(
                f"{DEBUG_HEADER} is for role Admin; start the gateway with --route-debug to let "
                "all callers use it"
            )
        if request.debug not in _WANTED or (request.debug == "explain" and request.wire == "grpc"):
            raise InvalidRequest(
                f"{DEBUG_HEADER} is {request.debug[:40]!r}; send route, or explain over REST",
                field=DEBUG_HEADER,
            )

    def _explained(self, request: GatewayRequest) -> Response:
        decision = self._router.preview(request, self._snapshot(), self._clock())
        shown = explain(request, decision, self._router.memory, _MOST_IN_BODY)
        body = json.dumps(shown, indent=2).encode() + b"\n"
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        return Response(whole(body), headers=headers)

    def _traced(
        self, request: GatewayRequest, record: RequestRecord, response: Response
    ) -> Response:
        decision = record.decision
        if not isinstance(decision, Decision):
            return response
        shown = explain(request, decision, self._router.memory, _MOST_IN_HEADER)
        text = json.dumps(shown | {"attempts": record.attempts}, separators=(",", ":"))

        async def trailers() -> Trailers:
            return (*await response.trailers(), (ROUTE_HEADER, text))

        headers = {**response.headers, ROUTE_HEADER: text}
        return replace(response, headers=headers, trailers=trailers)
