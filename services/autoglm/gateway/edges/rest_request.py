"""Reads an HTTP request into a `GatewayRequest`. Called by the REST edge.

Bounds everything it reads: the body on the wire, the body after decompression, the time for both,
and the memory for them. The body is read when the layers ask for it, once it is known who sends it.
What is wrong with the head becomes the call's `problem`, so that the layers see it too.
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
from autoglm.gateway.proxy.sse_transcript import REPLAY
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import GatewayRequest
from autoglm.validation import RequestInfo
from autoglm.validation import bounds as content_bounds
from autoglm.validation.scan.reading import read_openai

TIMEOUT_HEADER = "x-request-timeout-seconds"
# Triton's binary tensors: JSON of this many bytes comes first, raw values behind it.
BINARY_HEADER = "inference-header-content-length"
# From here on decompressing would hold up other requests; it goes to a thread, in pieces.
OFF_LOOP_BYTES = 64 * 1024
_GUNZIP_BYTES, _PLAIN_BYTES = 16 * 1024, 256 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Deflate cannot do better ("Maximum compression factor" of zlib's technical details).
_MOST_INFLATION = 1032
_GZIP = 16 + zlib.MAX_WBITS
# The connection's own headers, and those that this hop reads or sets itself.
_NOT_SENT_ON = frozenset(
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
        REPLAY,
    )
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request may take: bytes of its body, seconds where it names none or too many, and how
    many values its body has."""

    max_body_bytes: int
    default_timeout_seconds: float
    max_timeout_seconds: float
    content: content_bounds.Bounds = content_bounds.DEFAULT


def canonical(target: str) -> str:
    """A path, with or without a query, without a slash at its end: pods serve none with one."""
    path, mark, query = target.partition("?")
    return (path.rstrip("/") or "/") + mark + query


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's id, or a new one where theirs is absent or cannot be passed on."""
    return rpc.request_id_of(headers.get(status.REQUEST_ID, ""))


def call_of(
    request: web.Request,
    route: str,
    bounds: Bounds,
    info: RequestInfo | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> GatewayRequest:
    """A call without its body, from the head alone. With an `info` the body is never read.

    Never raises an AutoGLMError: the call carries it.
    """
    started = clock()
    timeout, problem = bounds.default_timeout_seconds, None
    try:
        timeout = timeout_of(request.headers, bounds)
    except AutoGLMError as error:
        problem = error
    return GatewayRequest(
        wire="http",
        route=route,
        target=canonical(str(request.rel_url)),
        payload=b"",
        request_id=request_id_of(request.headers),
        started=started,
        deadline=started + timeout,
        info=info,
        receive=None if info else partial(_receive, request, bounds, timeout),
        problem=problem,
        trace_headers={k: v for k in rpc.TRACE_HEADERS if (v := request.headers.get(k))},
        headers=forwarded_headers(request.headers),
        debug=request.headers.get(rpc.DEBUG_HEADER, ""),
        credentials=_credentials(request.headers),
        peer=_peer(request),
        continues=request.headers.get(rpc.CALL_HEADER, ""),
    )


async def _receive(
    request: web.Request,
    bounds: Bounds,
    timeout: float,
    call: GatewayRequest,
    hold: MemoryReservation,
) -> GatewayRequest:
    payload = await _payload(request, bounds.max_body_bytes, timeout, hold)
    json_part = _json_part(request.headers.get(BINARY_HEADER), payload)
    kind = request.headers.get("content-type", "")
    info = await read_openai(canonical(request.path), json_part, bounds.content, kind)
    return replace(call, payload=payload, info=info)


def _peer(request: web.Request) -> str:
    transport = request.transport
    if transport is None or isinstance(transport.get_extra_info("sockname"), tuple):
        return request.remote or ""
    # Envoy's socket: nobody else can write there.
    return request.headers.get(rpc.PEER_HEADER, "")


def _credentials(headers: CIMultiDictProxy[str]) -> rpc.Credentials:
    """By name, as most requests have many headers and one credential."""
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
    """The headers of a request that the pod gets to see."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    dropped = _NOT_SENT_ON | named
    return {k.lower(): v for k, v in headers.items() if k.lower() not in dropped}


async def expect(_: web.Request) -> None:
    """Nothing yet: a client that waits for our word before its body gets it when we read that."""


def _waits(request: web.Request) -> bool:
    return request.headers.get("expect", "").lower() == "100-continue"


async def _payload(
    request: web.Request, limit: int, timeout: float, hold: MemoryReservation
) -> bytes:
    announced = request.content_length or 0
    if announced > limit:
        raise _too_large(limit)
    hold.check(announced)
    if _waits(request):
        await request.writer.write(_CONTINUE)
        # The answer's head is still to come.
        request.writer.output_size = 0
    try:
        if request.content.is_eof():
            # All there already, as small bodies mostly are: nothing to wait for.
            body = await _read(request, limit, hold)
        else:
            async with asyncio.timeout(timeout):
                body = await _read(request, limit, hold)
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed before the body had arrived") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"the body could not be read: {error}") from error
    return await _decompressed(body, request.headers.get("content-encoding", ""), limit, hold)


async def _read(request: web.Request, limit: int, hold: MemoryReservation) -> bytes:
    """What is announced may never come, so what arrives is what counts."""
    # Grows in place, and gives its bytes without a copy: joining a list would stop the loop.
    body, first = io.BytesIO(), b""
    async for chunk in request.content.iter_any():
        if body.tell() + len(chunk) > limit:
            raise _too_large(limit)
        hold.take(len(chunk))
        first = b"" if body.tell() else chunk
        body.write(chunk)
    return first or body.getvalue()


async def _decompressed(body: bytes, encoding: str, limit: int, hold: MemoryReservation) -> bytes:
    if encoding.lower() in ("", "identity"):
        return body
    if encoding.lower() == "deflate":
        plain = await inflated(body, limit, hold)
        hold.give(len(body))
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
    hold.take(size)
    if max(len(body), size) <= OFF_LOOP_BYTES:
        plain = gunzip(body)
    else:
        plain = await asyncio.to_thread(gunzip, body)
    hold.give(len(body))
    return plain


def plain_size(body: bytes) -> int:
    """How long a gzip stream says that its content is (ISIZE of RFC 1952)."""
    return int.from_bytes(body[-4:], "little")


def gunzip(body: bytes) -> bytes:
    """As long as the stream says, however far the body would inflate."""
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
