"""Reads an HTTP request into a `GatewayRequest`. Called by the REST edge.

Bounds everything it reads: the body on the wire, the body after decompression, the time for both,
and the memory for them. The receive layer reads the body, after the caller was authenticated. An
error in the head becomes the request's `problem`, so that it is observed too.
"""

from __future__ import annotations

import asyncio
import io
import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from msgspec.structs import replace
from multidict import CIMultiDictProxy

from autoglm.common import rpc, status
from autoglm.common.errors import AutoGLMError, DeadlineExceeded, InvalidRequest, RequestTooLarge
from autoglm.gateway.edges.inflate import inflated
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import GatewayRequest
from autoglm.validation import RequestInfo
from autoglm.validation import bounds as content_bounds
from autoglm.validation.openai_stream import REPLAY_HEADER
from autoglm.validation.scan.reading import read_openai

TIMEOUT_HEADER = "x-request-timeout-seconds"
# Triton's binary tensors: JSON of this many bytes comes first, raw values behind it.
BINARY_HEADER = "inference-header-content-length"
# From this size on a thread decompresses, in pieces, so that other requests are not delayed.
OFF_LOOP_BYTES = 64 * 1024
_GUNZIP_BYTES, _PLAIN_BYTES = 16 * 1024, 256 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# The highest compression of deflate ("Maximum compression factor" of zlib's technical details).
_MOST_INFLATION = 1032
_GZIP = 16 + zlib.MAX_WBITS
# The connection's own headers, and those that this hop reads or sets itself.
_NOT_FORWARDED = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        *rpc.TRACE_HEADERS,
        status.REQUEST_ID,
        rpc.DEBUG_HEADER,
        rpc.PREFIX_SALT,
        rpc.CACHE_SALT,
        rpc.RESPONSE_ID,
        rpc.CALL_HEADER,
        rpc.PEER_HEADER,
        TIMEOUT_HEADER,
        REPLAY_HEADER,
    )
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a request: bytes of its body, default and longest timeout, values of its body."""

    max_body_bytes: int
    default_timeout_seconds: float
    max_timeout_seconds: float
    content: content_bounds.Bounds = content_bounds.DEFAULT


def canonical(target: str) -> str:
    """Return the target without a slash at the end of its path, which pods do not serve."""
    path, mark, query = target.partition("?")
    return (path.rstrip("/") or "/") + mark + query


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the caller's request id, or a new one where it is absent or invalid."""
    return rpc.request_id_of(headers.get(status.REQUEST_ID, ""))


def request_of(
    http_request: web.Request,
    route: str,
    bounds: Bounds,
    info: RequestInfo | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> GatewayRequest:
    """Return a request without its body. With an `info` the body is never read.

    Never raises an AutoGLMError: it becomes the request's `problem`.
    """
    started = clock()
    timeout, problem = bounds.default_timeout_seconds, None
    try:
        timeout = timeout_of(http_request.headers, bounds)
    except AutoGLMError as error:
        problem = error
    return GatewayRequest(
        wire="http",
        route=route,
        target=canonical(str(http_request.rel_url)),
        payload=b"",
        request_id=request_id_of(http_request.headers),
        started=started,
        deadline=started + timeout,
        info=info,
        receive=None if info else partial(_receive, http_request, bounds, timeout),
        problem=problem,
        trace_headers={k: v for k in rpc.TRACE_HEADERS if (v := http_request.headers.get(k))},
        headers=forwarded_headers(http_request.headers),
        debug=http_request.headers.get(rpc.DEBUG_HEADER, ""),
        credentials=_credentials(http_request.headers),
        peer=_peer(http_request),
        continues=http_request.headers.get(rpc.CALL_HEADER, ""),
    )


async def _receive(
    http_request: web.Request,
    bounds: Bounds,
    timeout: float,
    request: GatewayRequest,
    reservation: MemoryReservation,
) -> GatewayRequest:
    payload = await _payload(http_request, bounds.max_body_bytes, timeout, reservation)
    json_part = _json_part(http_request.headers.get(BINARY_HEADER), payload)
    kind = http_request.headers.get("content-type", "")
    info = await read_openai(canonical(http_request.path), json_part, bounds.content, kind)
    return replace(request, payload=payload, info=info)


def _peer(http_request: web.Request) -> str:
    transport = http_request.transport
    if transport is None or isinstance(transport.get_extra_info("sockname"), tuple):
        return http_request.remote or ""
    # Envoy's socket, where no other client can connect.
    return http_request.headers.get(rpc.PEER_HEADER, "")


def _credentials(headers: CIMultiDictProxy[str]) -> rpc.Credentials:
    """Return the credentials; looked up by name, since most requests have many headers."""
    return tuple(
        (name, value)
        for name in (rpc.AUTHORIZATION, rpc.API_KEY)
        if name in headers
        for value in headers.getall(name)
    )


def timeout_of(headers: Mapping[str, str], bounds: Bounds) -> float:
    given = headers.get(TIMEOUT_HEADER)
    if given is None:
        return bounds.default_timeout_seconds
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidRequest(
            f"header {TIMEOUT_HEADER} is {given[:40]!r}; give seconds above 0", field=TIMEOUT_HEADER
        )
    return min(seconds, bounds.max_timeout_seconds)


def forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that are forwarded to the pod."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    dropped = _NOT_FORWARDED | named
    return {k.lower(): v for k, v in headers.items() if k.lower() not in dropped}


async def expect(_: web.Request) -> None:
    """Send nothing yet: `100 Continue` is sent when the body is read."""


def _waits(http_request: web.Request) -> bool:
    return http_request.headers.get("expect", "").lower() == "100-continue"


async def _payload(
    http_request: web.Request, limit: int, timeout: float, reservation: MemoryReservation
) -> bytes:
    announced = http_request.content_length or 0
    if announced > limit:
        raise _too_large(limit)
    reservation.check(announced)
    if _waits(http_request):
        await http_request.writer.write(_CONTINUE)
        # The response's head was not written yet.
        http_request.writer.output_size = 0
    try:
        if http_request.content.is_eof():
            # The whole body has arrived, as small ones mostly have: no timeout is needed.
            body = await _read(http_request, limit, reservation)
        else:
            async with asyncio.timeout(timeout):
                body = await _read(http_request, limit, reservation)
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed before the body had arrived") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"the body could not be read: {error}") from error
    return await _decompressed(
        body, http_request.headers.get("content-encoding", ""), limit, reservation
    )


async def _read(http_request: web.Request, limit: int, reservation: MemoryReservation) -> bytes:
    """Read the body and reserve memory as it arrives, not for the announced length."""
    # Grows in place and returns its bytes without a copy: joining a list would block the loop.
    body, first = io.BytesIO(), b""
    async for chunk in http_request.content.iter_any():
        if body.tell() + len(chunk) > limit:
            raise _too_large(limit)
        reservation.take(len(chunk))
        first = b"" if body.tell() else chunk
        body.write(chunk)
    return first or body.getvalue()


async def _decompressed(
    body: bytes, encoding: str, limit: int, reservation: MemoryReservation
) -> bytes:
    if encoding.lower() in ("", "identity"):
        return body
    if encoding.lower() == "deflate":
        plain = await inflated(body, limit, reservation)
        reservation.give(len(body))
        return plain
    if encoding.lower() != "gzip":
        raise InvalidRequest(
            f"header content-encoding is {encoding[:40]!r}; send gzip, deflate or none",
            field="content-encoding",
        )
    size = plain_size(body)
    if size > _MOST_INFLATION * len(body):
        raise _not_whole()
    if size > limit:
        raise _too_large(limit)
    reservation.take(size)
    if max(len(body), size) <= OFF_LOOP_BYTES:
        plain = gunzip(body)
    else:
        plain = await asyncio.to_thread(gunzip, body)
    reservation.give(len(body))
    return plain


def plain_size(body: bytes) -> int:
    """Return the content's length by the gzip trailer (ISIZE of RFC 1952)."""
    return int.from_bytes(body[-4:], "little")


def gunzip(body: bytes) -> bytes:
    """Decompress, to at most the length of the gzip trailer."""
    reader, size, plain = zlib.decompressobj(_GZIP), plain_size(body), io.BytesIO()
    try:
        for at in range(0, len(body), _GUNZIP_BYTES):
            rest = body[at : at + _GUNZIP_BYTES]
            while rest and plain.tell() <= size:
                if reader.eof:
                    raise _not_whole()
                plain.write(reader.decompress(rest, _PLAIN_BYTES))
                rest = reader.unconsumed_tail
        plain.write(reader.flush())
    except zlib.error as error:
        raise InvalidRequest(f"the body is not gzip: {error}", field="content-encoding") from error
    if not reader.eof or reader.unused_data or plain.tell() != size:
        raise _not_whole()
    return plain.getvalue()


def _not_whole() -> InvalidRequest:
    return InvalidRequest(
        "the body is not one whole gzip stream; send it complete", field="content-encoding"
    )


def _json_part(length: str | None, payload: bytes) -> bytes | memoryview:
    if length is None:
        return payload
    if not length.isdecimal() or len(length) > 12 or int(length) > len(payload):
        raise InvalidRequest(
            f"header {BINARY_HEADER} is {length[:40]!r} for a body of {len(payload)} bytes; "
            "give the length of its JSON part",
            field=BINARY_HEADER,
        )
    return memoryview(payload)[: int(length)]


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body has more than {limit} bytes, the limit; send less")
