"""Builds a `GatewayRequest` from Envoy's ext_proc messages.

An error becomes the request's `problem`, so that the pipeline observes it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec.structs import replace

from autoglm.common import rpc
from autoglm.common.addresses import FORWARDED_FOR
from autoglm.common.errors import AutoGLMError, InvalidRequest, RequestTooLarge
from autoglm.gateway.edges.rest_request import (
    Bounds,
    forwarded_headers,
    request_id_of,
    timeout_of,
)
from autoglm.gateway.envoy.exchange import Exchange
from autoglm.gateway.envoy.messages import decoded
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
_FRAME_BYTES = 5
_HINTED = frozenset(("Generate", "GenerateStream", "Chat", "ChatStream"))
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")


@dataclass(frozen=True, slots=True)
class Seen:
    """The headers of a message from Envoy, in order; `values` has the last value of each name."""

    pairs: tuple[tuple[str, str], ...]
    has_body: bool
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Return the path with its query string."""
        return self.values.get(":path", "")


def seen(headers: Any) -> Seen:
    """Read Envoy's `HttpHeaders`."""
    pairs = pairs_of(headers.headers)
    return Seen(pairs, not headers.end_of_stream, dict(pairs))


def pairs_of(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return the pairs of Envoy's `HeaderMap`, whose values are bytes or, in older ones, text."""
    return tuple(
        (h.key, h.raw_value.decode("utf-8", "replace") or h.value) for h in headers.headers
    )


def wire_of(seen: Seen) -> Wire:
    """Return the wire of a request with a proxied method or path."""
    return "grpc" if seen.path in BY_PATH else "http"


def begin(seen: Seen, exchange: Exchange, bounds: Bounds, body: Body, now: float) -> GatewayRequest:
    """Build the request from its headers; `body` is called when the pipeline needs it."""
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
    method, metadata = BY_PATH[seen.path], rpc.rpc_from_metadata(seen.path, seen.pairs)
    found = _TIMEOUT.fullmatch(seen.values.get("grpc-timeout", ""))
    timeout = int(found[1]) * _UNITS[found[2]] if found else bounds.default_timeout_seconds
    return GatewayRequest(
        wire="grpc",
        route=method.route,
        target=method.path,
        payload=b"",
        request_id=metadata.request_id,
        started=now,
        deadline=now + min(timeout, bounds.max_timeout_seconds),
        trace_headers=metadata.trace_headers,
        credentials=metadata.credentials,
    )


def _http_call(seen: Seen, bounds: Bounds, now: float) -> GatewayRequest:
    headers = {k: v for k, v in seen.pairs if not k.startswith(":")}
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
        route=f"{seen.values.get(':method', '')} {api.route if api else path}",
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
    body: Body, bounds: Bounds, hint: str, request: GatewayRequest, hold: MemoryReservation
) -> GatewayRequest:
    """Return the request with `info`, from the routing hint or from the body.

    Raises AutoGLMError.
    """
    if hint and (info := _hinted(request, hint)):
        hold.take(info.size)
        return replace(request, info=info)
    return replace(request, info=await _info_of(request, await body(hold), bounds))


async def _info_of(request: GatewayRequest, received: bytes, bounds: Bounds) -> RequestInfo:
    if request.wire == "grpc":
        check_length(len(received) - _FRAME_BYTES, bounds.max_body_bytes)
        return await BY_PATH[request.target].info(message_of(received), bounds.content)
    check_length(len(received), bounds.max_body_bytes)
    path, kind = request.target.partition("?")[0], request.headers.get("content-type", "")
    return await read_openai(path, received, bounds.content, kind)


def _hinted(request: GatewayRequest, hint: str) -> RequestInfo | None:
    """Return the info in the client's routing hint, if that suffices: Envoy keeps the body."""
    method = BY_PATH.get(request.target)
    if method is None or method.name not in _HINTED or request.principal.models is not None:
        # The model in a hint is a claim: a caller that may not use all models needs its body read.
        return None
    return read_hint(decoded(hint), streaming=method.streaming)


def message_of(body: bytes) -> memoryview:
    """Return the single uncompressed message of a gRPC request. Raises InvalidRequest."""
    if len(body) < _FRAME_BYTES:
        raise InvalidRequest("the request has no message; send one")
    flag, length = struct.unpack_from(">BI", body)
    if flag or length != len(body) - _FRAME_BYTES:
        raise InvalidRequest("the request is not one uncompressed message; send one")
    return memoryview(body)[_FRAME_BYTES:]
