"""Builds a `GatewayRequest` from what an Envoy shows of a request.

An error becomes the request's `problem`, so that the pipeline observes it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from autoglm.common import rpc
from autoglm.common.addresses import FORWARDED_FOR
from autoglm.common.errors import AutoGLMError, Cancelled, InvalidRequest, RequestTooLarge
from autoglm.gateway.edges.rest_request import (
    Bounds,
    forwarded_headers,
    request_id_of,
    timeout_of,
)
from autoglm.gateway.envoy.access_log import decoded
from autoglm.gateway.envoy.config import HINTED_METHODS
from autoglm.gateway.envoy.exchange import Directions, End, Exchange
from autoglm.gateway.request.grpc_methods import BY_PATH
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import GatewayRequest, Wire
from autoglm.validation import RequestInfo
from autoglm.validation.http_apis import inference_post
from autoglm.validation.routing_hint import HINT_METADATA, read_hint
from autoglm.validation.scan.reading import read_openai

# Reads the body, once, and counts it in the memory reservation. Raises AutoGLMError.
Body = Callable[[MemoryReservation], Awaitable[bytes]]
# The prefix of a gRPC message.
FRAME_BYTES = 5
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")


@dataclass(frozen=True, slots=True)
class Seen:
    """The head of a request that an Envoy has received.

    `path` has the query string. `pairs` are the headers in order, `values` the last value of each.
    """

    method: str
    path: str
    pairs: tuple[tuple[str, str], ...]
    has_body: bool
    values: Mapping[str, str] = field(default_factory=dict)


def wire_of(seen: Seen) -> Wire:
    """Return the wire of a request with a proxied method or path."""
    return "grpc" if seen.path in BY_PATH else "http"


def may_have_hint(seen: Seen) -> bool:
    """Return whether the request is one of those that our Envoy shows without their body."""
    method = BY_PATH.get(seen.path)
    return method is not None and method.name in HINTED_METHODS and HINT_METADATA in seen.values


def begin(
    seen: Seen, exchange: Exchange, bounds: Bounds, body: Body | None, now: float
) -> GatewayRequest:
    """Build the request from its headers; `body` is called when the pipeline needs it.

    Without `body`, a request whose body is needed is forwarded to the gateway's own server.
    """
    request = (
        _grpc_call(seen, bounds, now) if exchange.wire == "grpc" else _http_call(seen, bounds, now)
    )
    return replace(
        request,
        exchange=exchange,
        receive=partial(receive, body, bounds, seen.values.get(HINT_METADATA, "")),
        started=now,
        peer=bounds.proxies.client_of(
            seen.values.get(rpc.PEER_HEADER, ""), seen.values.get(FORWARDED_FOR, "")
        ),
    )


def _grpc_call(seen: Seen, bounds: Bounds, now: float) -> GatewayRequest:
    method, headers = BY_PATH[seen.path], seen.values
    found = _TIMEOUT.fullmatch(headers.get("grpc-timeout", ""))
    timeout = int(found[1]) * _UNITS[found[2]] if found else bounds.default_timeout_seconds
    return GatewayRequest(
        wire="grpc",
        route=method.route,
        target=method.path,
        payload=b"",
        request_id=request_id_of(headers),
        started=now,
        deadline=now + min(timeout, bounds.max_timeout_seconds),
        trace_headers={k: headers[k] for k in rpc.TRACE_HEADERS if k in headers},
        credentials=rpc.credentials_of(seen.pairs),
    )


def _http_call(seen: Seen, bounds: Bounds, now: float) -> GatewayRequest:
    headers = seen.values
    timeout, problem = bounds.default_timeout_seconds, None
    try:
        timeout = timeout_of(headers, bounds)
        length = headers.get("content-length", "")
        check_length(int(length) if length.isdecimal() else 0, bounds.max_body_bytes)
    except AutoGLMError as error:
        problem = error
    path = seen.path.partition("?")[0]
    api = inference_post(path)
    return GatewayRequest(
        wire="http",
        route=f"{seen.method} {api.route if api else path}",
        target=seen.path,
        payload=b"",
        request_id=request_id_of(headers),
        started=now,
        deadline=now + timeout,
        problem=problem,
        trace_headers={k: headers[k] for k in rpc.TRACE_HEADERS if k in headers},
        headers=forwarded_headers(headers),
        credentials=rpc.credentials_of(seen.pairs),
    )


def check_length(length: int, limit: int) -> None:
    """Raise RequestTooLarge if the body is longer than the limit."""
    if length > limit:
        raise RequestTooLarge(f"the body has more than {limit} bytes, the limit; send less")


async def receive(
    body: Body | None, bounds: Bounds, hint: str, request: GatewayRequest, hold: MemoryReservation
) -> GatewayRequest:
    """Return the request with `info`, from the routing hint or from the body.

    Raises AutoGLMError.
    """
    if hint and (info := _hinted(request, hint)):
        hold.take(info.size)
        return replace(request, info=info)
    if body is None:
        return replace(request, info=await _info_at_own_server(request, hold))
    return replace(request, info=await _info_of(request, await body(hold), bounds))


async def _info_at_own_server(request: GatewayRequest, hold: MemoryReservation) -> RequestInfo:
    assert isinstance(request.exchange, Exchange)
    outcome = await request.exchange.send(Directions())
    if isinstance(outcome, End):
        raise outcome.error or Cancelled("the client disconnected")
    assert outcome.info is not None, "it has been received"
    hold.take(len(outcome.payload))
    return outcome.info


async def _info_of(request: GatewayRequest, received: bytes, bounds: Bounds) -> RequestInfo:
    if request.wire == "grpc":
        check_length(len(received) - FRAME_BYTES, bounds.max_body_bytes)
        return await BY_PATH[request.target].info(message_of(received), bounds.content)
    check_length(len(received), bounds.max_body_bytes)
    path, kind = request.target.partition("?")[0], request.headers.get("content-type", "")
    return await read_openai(path, received, bounds.content, kind)


def _hinted(request: GatewayRequest, hint: str) -> RequestInfo | None:
    """Return the info in the client's routing hint, if that suffices: Envoy keeps the body."""
    method = BY_PATH.get(request.target)
    if method is None or method.name not in HINTED_METHODS or request.principal.models is not None:
        # The model in a hint is a claim: a caller that may not use all models needs its body read.
        return None
    return read_hint(decoded(hint), streaming=method.streaming)


def message_of(body: bytes) -> memoryview:
    """Return the single uncompressed message of a gRPC request. Raises InvalidRequest."""
    if len(body) < FRAME_BYTES:
        raise InvalidRequest("the request has no message; send one")
    flag, length = struct.unpack_from(">BI", body)
    if flag or length != len(body) - FRAME_BYTES:
        raise InvalidRequest("the request is not one uncompressed message; send one")
    return memoryview(body)[FRAME_BYTES:]
