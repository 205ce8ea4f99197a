"""Returns the decision trace of a request with the header `x-autoglm-debug`.

With `route` the response has the decision in `x-autoglm-route` (a header of REST, a trailer of
gRPC); with `explain` the decision is the response, and no pod gets the request. Both show addresses
and cached prefixes, so they need role Admin, unless the gateway allows all callers. The innermost
layer, around the proxy.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from autoglm.common.errors import InvalidRequest, PermissionDenied
from autoglm.common.rpc import DEBUG_HEADER
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.principal import Role
from autoglm.gateway.request.request import (
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
    Trailers,
    one_chunk,
)
from autoglm.gateway.routing import Decision, Router
from autoglm.gateway.routing.router import explain

ROUTE_HEADER = "x-autoglm-route"
_WANTED = ("route", "explain")
# Servers and proxies take some 8 KiB of headers.
_MOST_IN_HEADER, _MOST_IN_BODY = 8, 256


class RouteDebug:
    """A layer. `is_open` allows all callers."""

    def __init__(
        self,
        router: Router,
        snapshot: Callable[[], Snapshot],
        *,
        is_open: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._snapshot = snapshot
        self._is_open = is_open
        self._clock = clock

    def __call__(self, inner: Handler) -> Handler:
        def handle(
            request: GatewayRequest, record: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            if not request.debug:
                return inner(request, record)
            self._check(request)
            if request.debug == "explain":
                return self._explained(request)
            return self._with_trace(inner, request, record)

        return handle

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

    @asynccontextmanager
    async def _explained(self, request: GatewayRequest) -> AsyncIterator[Response]:
        decision = self._router.preview(request, self._snapshot(), self._clock())
        shown = explain(request, decision, self._router.memory, _MOST_IN_BODY)
        body = json.dumps(shown, indent=2).encode() + b"\n"
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        yield Response(one_chunk(body), headers=headers)

    @asynccontextmanager
    async def _with_trace(
        self, inner: Handler, request: GatewayRequest, record: RequestRecord
    ) -> AsyncIterator[Response]:
        async with inner(request, record) as response:
            decision = record.decision
            if not isinstance(decision, Decision):
                yield response
                return
            shown = explain(request, decision, self._router.memory, _MOST_IN_HEADER)
            text = json.dumps(shown | {"attempts": record.attempts}, separators=(",", ":"))

            async def trailers() -> Trailers:
                return (*await response.trailers(), (ROUTE_HEADER, text))

            yield replace(
                response, headers={**response.headers, ROUTE_HEADER: text}, trailers=trailers
            )
