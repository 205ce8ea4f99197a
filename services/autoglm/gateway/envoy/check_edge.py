"""The picker: decides about each request for pods of the gateway's own Envoy.

Envoy sends a request's head and body over HTTP (ext_authz), and waits. This edge builds the same
`GatewayRequest` as the other edges, runs the pipeline, and responds with the pod or with the error.
The request holds its slot until Envoy's access log reports the end of its stream.

A response of 200 lets a request pass, with its header fields set on the request. Envoy sends any
other response to the client, but takes a status from 500 on for a failure of the check, and makes a
gRPC status of its own unless the response has one. So a status from 500 on is replaced by another,
Envoy's local replies restore it, and over gRPC the response has the fields of gRPC's trailers.
"""

from __future__ import annotations

import asyncio
import io
import time
from functools import partial

from autoglm.common import rpc, status
from autoglm.common.errors import AutoGLMError, Cancelled
from autoglm.gateway.edges.rest_request import Bounds, protocol_error, request_id_of
from autoglm.gateway.envoy import request as envoy_request
from autoglm.gateway.envoy.access_log import encoded
from autoglm.gateway.envoy.config import PICKER_HEADERS, denied_status
from autoglm.gateway.envoy.exchange import Directions, Exchange, Exchanges
from autoglm.gateway.envoy.exchange_runner import ExchangeRunner
from autoglm.gateway.envoy.request import FRAME_BYTES, Seen, check_length
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import Handler, Wire
from autoglm.http1.exchange import BadBody, ClientDisconnected
from autoglm.http1.exchange import Exchange as Check
from autoglm.http1.heads import Fields
from autoglm.validation.http_errors import HttpError, to_http

_PICKER_HEADERS = frozenset(PICKER_HEADERS)
_REMOVED = b"x-envoy-auth-headers-to-remove"
# Envoy's own fields of a check, which the client has not sent.
_ENVOYS = frozenset(
    (
        b"x-envoy-auth-partial-body",
        b"x-envoy-expected-rq-timeout-ms",
        b"x-envoy-internal",
    )
)


class CheckEdge:
    """Responds to Envoy's checks; `serve` is the handler of an HTTP server."""

    def __init__(self, pipeline: Handler, exchanges: Exchanges, bounds: Bounds) -> None:
        self._runner = ExchangeRunner(pipeline, exchanges)
        self._bounds = bounds

    async def serve(self, check: Check) -> None:
        """Decide about one request. Raises ClientDisconnected."""
        seen = seen_of(check)
        if "," in seen.values.get(rpc.API_KEY, ""):
            # Several fields, which a check joins: only the gateway's own server sees each key.
            check.respond(200, directed(Directions()), b"")
            return
        wire = envoy_request.wire_of(seen)
        names = frozenset(map(bytes.decode, dict(check.fields)))
        exchange = Exchange(seen.values[rpc.CALL_HEADER], wire, names)
        has_body = not envoy_request.may_have_hint(seen)
        body = partial(_body, check, self._bounds.max_body_bytes) if has_body else None
        request = envoy_request.begin(seen, exchange, self._bounds, body, time.monotonic())
        task = self._runner.start(request, exchange)
        try:
            directions = await exchange.directions
        except asyncio.CancelledError:
            # The client has left while its request waited.
            task.cancel()
            raise
        if isinstance(directions, AutoGLMError):
            _reject(check, rejected(wire, request.request_id, request.target, directions))
        else:
            check.respond(200, directed(directions), b"")

    def reject(self, check: Check, code: int, why: str) -> None:
        """Respond to a check that is not valid HTTP."""
        seen = seen_of(check)
        request_id = request_id_of(seen.values)
        error = protocol_error(code, why)
        _reject(check, rejected(envoy_request.wire_of(seen), request_id, seen.path, error))

    async def close(self) -> None:
        """Cancel all requests."""
        await self._runner.close()


def seen_of(check: Check) -> Seen:
    """Return the head of the client's request, which a check repeats."""
    pairs = tuple(
        [
            (name.decode(), value.decode("utf-8", "replace"))
            for name, value in check.fields
            if name not in _ENVOYS
        ]
    )
    target = check.target.decode("utf-8", "replace")
    return Seen(check.method, target, pairs, has_body=check.announced != 0, values=dict(pairs))


async def _body(check: Check, limit: int, reservation: MemoryReservation) -> bytes:
    """Read the body and count it in the memory budget, although Envoy holds it as well."""
    check_length(check.announced - FRAME_BYTES, limit)
    reservation.check(max(check.announced, 0))
    body, first = io.BytesIO(), b""
    try:
        while chunk := await check.read():
            reservation.take(len(chunk))
            first = b"" if body.tell() else chunk
            body.write(chunk)
    except ClientDisconnected as error:
        raise Cancelled(str(error)) from error
    except BadBody as error:
        raise protocol_error(error.status, f"the body could not be read: {error}") from error
    return first or body.getvalue()


def _reject(check: Check, response: HttpError) -> None:
    fields = [(k.encode(), v.encode()) for k, v in response.headers.items()]
    check.respond(response.status, fields, response.body)


def directed(directions: Directions) -> Fields:
    """Return the fields of a response that lets a request pass as directed."""
    headers = directions.set_headers
    assert headers.keys() <= _PICKER_HEADERS, "Envoy drops others"
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    if directions.removed_headers:
        fields.append((_REMOVED, ",".join(directions.removed_headers).encode()))
    return fields


def rejected(wire: Wire, request_id: str, target: str, error: AutoGLMError) -> HttpError:
    """Return the response that rejects a request, as the gateway's own servers would."""
    if wire == "grpc":
        return _grpc_error(request_id, error)
    found = to_http(error, request_id, target)
    return HttpError(denied_status(found.status), found.headers, found.body)


def _grpc_error(request_id: str, error: AutoGLMError) -> HttpError:
    found = status.to_grpc(error, request_id)
    headers = {k: v if isinstance(v, str) else encoded(v) for k, v in found.trailers}
    headers["grpc-status"] = str(found.code.value[0])
    return HttpError(denied_status(error.http_status), headers, found.message.encode())
