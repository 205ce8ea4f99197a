"""Shows how a request is routed, to those who ask with the header `x-autoglm-debug`.

`route` answers as always and says in `x-autoglm-route` (a header of REST, a trailer of gRPC) how
the pod was chosen; `explain` asks no pod and answers with the decision. Both show addresses and
what is cached, so they are for role Admin, or for all where the gateway is told so. Innermost
layer, around the relay.
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
)
from autoglm.gateway.routing import Decision, Router
from autoglm.gateway.routing.explain import explain

ROUTE_HEADER = "x-autoglm-route"
_WANTED = ("route", "explain")
# Servers and proxies take some 8 KiB of headers.
_MOST_IN_HEADER, _MOST_IN_BODY = 8, 256


class RouteDebug:
    """Wraps a handler. `is_open` lets everybody ask."""

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
            call: GatewayRequest, notes: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            if not call.debug:
                return inner(call, notes)
            self._check(call)
            if call.debug == "explain":
                return self._explained(call)
            return self._told(inner, call, notes)

        return handle

    def _check(self, call: GatewayRequest) -> None:
        if not self._is_open and Role.ADMIN not in call.principal.roles:
            raise PermissionDenied(
                f"{DEBUG_HEADER} is for role Admin; start the gateway with --route-debug to let "
                "everybody ask"
            )
        if call.debug not in _WANTED or (call.debug == "explain" and call.wire == "grpc"):
            raise InvalidRequest(
                f"{DEBUG_HEADER} is {call.debug[:40]!r}; send route, or explain over REST",
                field=DEBUG_HEADER,
            )

    @asynccontextmanager
    async def _explained(self, call: GatewayRequest) -> AsyncIterator[Response]:
        decision = self._router.preview(call, self._snapshot(), self._clock())
        shown = explain(call, decision, self._router.memory, _MOST_IN_BODY)
        body = json.dumps(shown, indent=2).encode() + b"\n"
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        yield Response(_one(body), headers=headers)

    @asynccontextmanager
    async def _told(
        self, inner: Handler, call: GatewayRequest, notes: RequestRecord
    ) -> AsyncIterator[Response]:
        async with inner(call, notes) as reply:
            decision = notes.decision
            if not isinstance(decision, Decision):
                yield reply
                return
            shown = explain(call, decision, self._router.memory, _MOST_IN_HEADER)
            text = json.dumps(shown | {"attempts": notes.attempts}, separators=(",", ":"))

            async def trailers() -> Trailers:
                return (*await reply.trailers(), (ROUTE_HEADER, text))

            yield replace(reply, headers={**reply.headers, ROUTE_HEADER: text}, trailers=trailers)


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body
