"""Reads an HTTP request into a `GatewayRequest`. Called by the REST edge.

Bounds everything it reads: the body on the wire, the body after decompression, the time for both,
and the memory for them. The receive layer reads the body, after the caller was authenticated. An
error in the head becomes the request's `problem`, so that it is observed too.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from urllib.parse import parse_qsl, unquote

from msgspec.structs import replace

from autoglm.common import errors, rpc, status
from autoglm.common.addresses import FORWARDED_FOR, NO_PROXIES, TrustedProxies
from autoglm.common.errors import AutoGLMError, DeadlineExceeded, InvalidRequest, RequestTooLarge
from autoglm.gateway.edges.cors import Cors
from autoglm.gateway.edges.inflate import inflated
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import GatewayRequest
from autoglm.http1.exchange import BadBody, ClientDisconnected, Exchange
from autoglm.http1.heads import joined
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
# The highest compression of deflate ("Maximum compression factor" of zlib's technical details).
_MOST_INFLATION = 1032
_GZIP = 16 + zlib.MAX_WBITS
_CREDENTIALS = {name.encode(): name for name in (rpc.AUTHORIZATION, rpc.API_KEY)}
_ENCODED = re.compile("%(2[Ff5])")
_SHORT_TARGET_BYTES = 256
_AUTHORITY_END = re.compile("[/?#]")
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
    """Limits of a request: bytes of its body, default and longest timeout, values of its body; and
    the proxies that are believed about its client."""

    max_body_bytes: int
    default_timeout_seconds: float
    max_timeout_seconds: float
    content: content_bounds.Bounds = content_bounds.DEFAULT
    proxies: TrustedProxies = NO_PROXIES


class MethodNotAllowed(AutoGLMError):
    """A method that the path does not have."""

    reason = "METHOD_NOT_ALLOWED"
    grpc_status = "UNIMPLEMENTED"
    http_status = 405


def _protocol_errors() -> Mapping[int, type[AutoGLMError]]:
    """Return the errors of HTTP itself that have no other name here."""
    names = {
        408: "REQUEST_TIMEOUT",
        417: "EXPECTATION_FAILED",
        431: "HEAD_TOO_LARGE",
        505: "HTTP_VERSION_NOT_SUPPORTED",
    }
    return {
        code: type(reason, (InvalidRequest,), {"reason": reason, "http_status": code})
        for code, reason in names.items()
    }


_PROTOCOL_ERRORS: Mapping[int, type[AutoGLMError]] = {
    **_protocol_errors(),
    405: MethodNotAllowed,
    501: errors.Unimplemented,
}


def protocol_error(code: int, why: str) -> AutoGLMError:
    """Return the error for a request that the HTTP server rejects."""
    if code == errors.QueueFull.http_status:
        return errors.QueueFull(why, retry_after=1.0)
    return _PROTOCOL_ERRORS.get(code, InvalidRequest)(why)


class HttpRequest:
    """The head of a request, and the exchange through which its body and its response pass.

    `route` and `name` are set once its route is known: `POST /v2/models/{model}/infer`, and the
    model, or the id, that the path names.
    """

    __slots__ = (
        "cors",
        "exchange",
        "headers",
        "method",
        "name",
        "path",
        "request_id",
        "route",
        "routed",
        "target",
    )

    def __init__(self, exchange: Exchange, cors: Cors) -> None:
        self.exchange, self.cors = exchange, cors
        self.method = exchange.method
        self.headers: Mapping[str, str] = joined(exchange.fields)
        """Names are in lower case; repeated headers are joined."""
        self.request_id = request_id_of(self.headers)
        target = exchange.target
        read = _known_targets if len(target) <= _SHORT_TARGET_BYTES else _read_target
        self.target, self.path, self.routed = read(target)
        self.route = self.name = ""

    def query(self, name: str) -> str:
        """Return the first value of a parameter of the query string; empty without one."""
        pairs = parse_qsl(self.target.partition("?")[2], keep_blank_values=True)
        return next((value for key, value in pairs if key == name), "")


def _read_target(target: bytes) -> tuple[str, str, str]:
    """Return the path with its query string as it was sent, the path, and what selects a route."""
    sent = canonical(_origin_form(target.decode("utf-8", "surrogateescape")))
    path = routed = sent.partition("?")[0]
    if "%" in path:
        # A slash that was encoded is part of a name, not of the path that selects a route.
        routed = unquote(_ENCODED.sub(r"%25\1", path))
        path = canonical(unquote(path))
    return sent, path, routed


_known_targets = lru_cache(1024)(_read_target)


def unquoted(segment: str) -> str:
    """Return a part of `HttpRequest.routed` with everything decoded."""
    return segment.replace("%2F", "/").replace("%2f", "/").replace("%25", "%")


def _origin_form(target: str) -> str:
    """Return the path and the query of a target, which may be absolute (RFC 9112, 3.2.2)."""
    if not target.startswith("/"):
        scheme, mark, rest = target.partition("://")
        if mark and scheme.lower() in ("http", "https"):
            authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
            target = rest[len(authority) :]
            target = target if target.startswith("/") else f"/{target}"
    return target.partition("#")[0]


def canonical(target: str) -> str:
    """Return the target without a slash at the end of its path, which pods do not serve."""
    path, mark, query = target.partition("?")
    return (path.rstrip("/") or "/") + mark + query


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the caller's request id, or a new one where it is absent or invalid."""
    return rpc.request_id_of(headers.get(status.REQUEST_ID, ""))


def request_of(
    http: HttpRequest,
    bounds: Bounds,
    info: RequestInfo | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> GatewayRequest:
    """Return a request without its body. With an `info` the body is never read.

    Never raises an AutoGLMError: it becomes the request's `problem`.
    """
    started, headers, exchange = clock(), http.headers, http.exchange
    timeout, problem = bounds.default_timeout_seconds, None
    try:
        timeout = timeout_of(headers, bounds)
    except AutoGLMError as error:
        problem = error
    return GatewayRequest(
        wire="http",
        route=http.route,
        target=http.target,
        payload=b"",
        request_id=http.request_id,
        started=started,
        deadline=started + timeout,
        info=info,
        receive=None if info else partial(_receive, http, bounds, timeout),
        problem=problem,
        trace_headers={k: headers[k] for k in rpc.TRACE_HEADERS if k in headers},
        headers=forwarded_headers(headers),
        debug=headers.get(rpc.DEBUG_HEADER, ""),
        credentials=_credentials(http),
        peer=bounds.proxies.client_of(
            # Only Envoy can connect to a Unix socket.
            headers.get(rpc.PEER_HEADER, "") if exchange.is_local else exchange.peer,
            headers.get(FORWARDED_FOR, ""),
        ),
        continues=headers.get(rpc.CALL_HEADER, ""),
    )


async def _receive(
    http: HttpRequest,
    bounds: Bounds,
    timeout: float,
    request: GatewayRequest,
    reservation: MemoryReservation,
) -> GatewayRequest:
    payload = await _payload(http, bounds.max_body_bytes, timeout, reservation)
    json_part = _json_part(http.headers.get(BINARY_HEADER), payload)
    kind = http.headers.get("content-type", "")
    info = await read_openai(http.path, json_part, bounds.content, kind)
    return replace(request, payload=payload, info=info)


def _credentials(http: HttpRequest) -> rpc.Credentials:
    """Return every value of the headers that carry a credential, each as it was sent."""
    found = [pair for pair in http.exchange.fields if pair[0] in _CREDENTIALS]
    return tuple([(_CREDENTIALS[k], v.decode("utf-8", "surrogateescape")) for k, v in found])


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
    """Return the headers that are forwarded to the pod; names are in lower case."""
    dropped = _NOT_FORWARDED
    if "connection" in headers:
        dropped = dropped | {name.strip().lower() for name in headers["connection"].split(",")}
    return {k: v for k, v in headers.items() if k not in dropped}


async def _payload(
    http: HttpRequest, limit: int, timeout: float, reservation: MemoryReservation
) -> bytes:
    exchange = http.exchange
    if exchange.announced > limit:
        raise _too_large(limit)
    try:
        if exchange.is_complete and exchange.buffered <= limit:
            # The whole body has arrived, as small ones mostly have.
            body = await exchange.read()
            reservation.take(len(body))
        else:
            reservation.check(max(exchange.announced, 0))
            async with asyncio.timeout(timeout):
                body = await _read(exchange, limit, reservation)
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed before the body had arrived") from error
    except BadBody as error:
        raise protocol_error(error.status, f"the body could not be read: {error}") from error
    except ClientDisconnected as error:
        raise errors.Cancelled(str(error)) from error
    encoding = http.headers.get("content-encoding")
    return await _decompressed(body, encoding, limit, reservation) if encoding else body


async def _read(exchange: Exchange, limit: int, reservation: MemoryReservation) -> bytes:
    """Read the body and reserve memory as it arrives, not for the announced length."""
    # Grows in place and returns its bytes without a copy: joining a list would block the loop.
    body, first = io.BytesIO(), b""
    while chunk := await exchange.read():
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
