"""Sends HTTP requests to endpoints and forwards the responses as bytes: the HTTP `Upstream`.

Maps failures (`RetryElsewhere` before the first byte, `StreamBroken` after it) and decides which
headers are forwarded. Never parses a body, picks an endpoint or retries: the proxy does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial

from autoglm.common import errors
from autoglm.common.process import LOCAL_SHORTAGE
from autoglm.common.rpc import is_internal_header
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, no_fallbacks
from autoglm.gateway.request.event_stream import LastEvent
from autoglm.gateway.request.request import GatewayRequest, Response, Write
from autoglm.http1.connection import ConnectionLost
from autoglm.http1.connection import Response as HttpResponse
from autoglm.http1.heads import Fields, field, joined, origin_of, request_head
from autoglm.http1.pool import ConnectFailed, Pool, ReusedConnectionLost
from autoglm.validation.http_errors import EVENT_STREAM

# CORS headers of upstream servers, which do not apply to the gateway's origin.
UPSTREAM_CORS_HEADERS = tuple(
    f"access-control-{name}"
    for name in (
        "allow-credentials",
        "allow-headers",
        "allow-methods",
        "allow-origin",
        "expose-headers",
        "max-age",
    )
)

# Below the 5 s after which uvicorn closes idle connections, so that none is used as it closes.
KEEPALIVE_SECONDS = 4.0
CONNECT_SECONDS = 2.0
_MAX_ERROR_BYTES = 64 * 1024
# Responses up to this length are buffered, so that a broken one is retried; others are streamed.
_WHOLE_BYTES = 4 * 1024 * 1024
_STREAMS = ("text/event-stream", "multipart/mixed", "application/x-ndjson")
_MAX_DIGITS = 9
_NO_SUCH_PATH = (404, 405)
_SET_COOKIE = b"set-cookie"
# Hop-by-hop headers (RFC 9110, 7.6.1), those that each hop sets itself, and cookies.
_NOT_RELAYED = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "set-cookie",
        "date",
        "server",
        *UPSTREAM_CORS_HEADERS,
        "x-request-id",
    )
)


# `retry-after` is set separately: the soonest of all servers.
_OF_BODY = ("etag", "last-modified", "retry-after", "vary")


def client_pool(tls: ssl.SSLContext | None = None) -> Pool:
    """Return a pool for connections to endpoints."""
    return Pool(tls, connect_seconds=CONNECT_SECONDS, keepalive_seconds=KEEPALIVE_SECONDS)


def cookies_of(fields: Fields) -> tuple[str, ...]:
    """Return the values of Set-Cookie, which cannot be joined (RFC 9110, 5.3)."""
    if _SET_COOKIE not in dict(fields):
        return ()
    return tuple(v.decode("utf-8", "surrogateescape") for k, v in fields if k == _SET_COOKIE)


def relayed_headers(fields: Fields) -> dict[str, str]:
    """Return a response's headers without hop-by-hop headers, with names in lower case.

    Repeated ones are joined. Without cookies: see `cookies_of`.
    """
    dropped, headers = _NOT_RELAYED, joined(fields)
    if named := headers.get("connection"):
        dropped = dropped | {name.strip().lower() for name in named.split(",")}
    return {name: value for name, value in headers.items() if name not in dropped}


class HttpUpstream:
    """An `Upstream` over one pool of connections. The HTTP method is the first word of the route.

    `key` is sent to OpenAI servers in place of the caller's credentials.
    """

    def __init__(self, pool: Pool, key: UpstreamKey | None = None) -> None:
        self._pool = pool
        self._key = key or UpstreamKey()

    async def __call__(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> Response:
        sent = {**request.headers, **headers, "accept-encoding": "identity"}
        if endpoint.endpoint.kind == "openai":
            sent = {k: v for k, v in sent.items() if not is_internal_header(k)}
            sent |= self._key.headers
        method, origin = request.route.partition(" ")[0], origin_of(endpoint.http_base)
        target, length = origin.path + request.target, len(request.payload)
        head = request_head(method, target, origin.authority, sent.items(), length)
        is_head, response = method == "HEAD", None
        ends_at = asyncio.get_running_loop().time() + timeout
        try:
            response = await self._pool.send(
                origin, head, request.payload, ends_at, is_head=is_head
            )
            first = await _begun(response, request)
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, ConnectFailed | ConnectionLost | TimeoutError):
                raise _before_first_byte(error, endpoint) from error
            raise
        return Response(
            partial(_forward, response, first, endpoint, request.target),
            status=response.status,
            headers=relayed_headers(response.fields),
            cookies=cookies_of(response.fields),
            # Before the response is complete this closes the connection, which cancels the
            # request in the pod.
            close=response.close,
        )


async def _begun(response: HttpResponse, request: GatewayRequest) -> bytes:
    """Return the first bytes of a response. Raises RetryElsewhere where it is worth a retry."""
    if response.status == errors.NoReadyEndpoint.http_status:
        raise await _unavailable(response)
    if response.status in _NO_SUCH_PATH:
        return await _own_error(response, request)
    return await _first_bytes(response, request)


async def _first_bytes(response: HttpResponse, request: GatewayRequest) -> bytes:
    """Read the first bytes of a stream, or the whole of another response, unless it is long.

    A response that was not forwarded yet can be retried when it breaks.
    """
    first = await response.read()
    if response.is_complete and not response.buffered:
        return first
    is_stream = _content_type(response) in _STREAMS or (
        request.info is not None and request.info.streaming
    )
    if is_stream or not first:
        return first
    parts, size = [first], len(first)
    while size <= _WHOLE_BYTES and (part := await response.read()):
        parts.append(part)
        size += len(part)
        if not request.hold.try_take(len(part)):
            break
    return b"".join(parts)


def _content_type(response: HttpResponse) -> str:
    return field(response.fields, b"content-type").partition(b";")[0].strip().lower().decode()


def _before_first_byte(
    error: ConnectFailed | ConnectionLost | TimeoutError, endpoint: EndpointView
) -> Exception:
    if isinstance(error, ConnectFailed) and error.errno in LOCAL_SHORTAGE:
        # The endpoint is healthy.
        return RetryElsewhere(
            errors.QueueFull(
                f"the gateway cannot open another connection: {error}", retry_after=1.0
            )
        )
    if isinstance(error, TimeoutError):
        return errors.DeadlineExceeded("the deadline passed before the pod responded")
    unreachable = errors.NoReadyEndpoint(f"{endpoint.url} did not respond: {error}")
    # A healthy pod may have closed a connection that was idle.
    return RetryElsewhere(unreachable, gone=not isinstance(error, ReusedConnectionLost))


async def _own_error(response: HttpResponse, request: GatewayRequest) -> bytes:
    """Return the body of an API error. Raises Unimplemented for an error of the framework."""
    body = await _error_body(response)
    try:
        if "error" in json.loads(body):
            return body
    except (ValueError, TypeError, RecursionError):
        pass  # Not the API's shape of errors, so the server does not know the path.
    raise errors.Unimplemented(f"the server of {request.model!r} has no {request.route}")


async def _error_body(response: HttpResponse) -> bytes:
    """Return the start of a body, as far as an error's can be."""
    body = b""
    while len(body) < _MAX_ERROR_BYTES and (piece := await response.read()):
        body += piece
    return body[:_MAX_ERROR_BYTES]


async def _unavailable(response: HttpResponse) -> RetryElsewhere:
    """Return the error for a 503: the pod accepts no requests now and has begun nothing."""
    body = await _error_body(response)
    try:
        error = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        code, message = "", "the endpoint takes no requests now"
    draining = code == errors.ShuttingDown.reason.lower()
    headers = relayed_headers(response.fields)
    wait = retry_after_seconds(headers.get("retry-after", ""), time.time())
    error = errors.NoReadyEndpoint(message, retry_after=wait)
    error.headers = _without_body(headers)
    elsewhere_only = wait is not None
    return RetryElsewhere(error, draining=draining, elsewhere_only=elsewhere_only, refused=True)


def _without_body(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that also apply to the gateway's own error body."""
    return {k: v for k, v in headers.items() if not k.startswith("content-") and k not in _OF_BODY}


def retry_after_seconds(value: str, now: float) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3); None if it is invalid.

    `now` is a Unix time, for the form that is a date.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


async def _forward(
    response: HttpResponse, first: bytes, endpoint: EndpointView, target: str, write: Write
) -> None:
    last: LastEvent | None = None
    if (
        not response.is_framed
        and response.status == 200
        and _content_type(response) == EVENT_STREAM
    ):
        # HTTP's framing shows an incomplete response; without it only the events do.
        last = LastEvent(target)
        write = _watched(last, write)
    if first and (waiting := write(first)) is not None:
        await waiting
    try:
        if not response.is_complete or response.buffered:
            await response.relay(write)
    except TimeoutError as error:
        raise errors.DeadlineExceeded("the deadline passed during the response") from error
    except ConnectionLost as error:
        raise errors.StreamBroken(
            f"{endpoint.url} disconnected during the response: {error}"
        ) from error
    if last is not None and last.is_missing:
        raise errors.StreamBroken(f"{endpoint.url} ended the stream before its last event")


def _watched(last: LastEvent, write: Write) -> Write:
    def watched(chunk: bytes) -> Awaitable[None] | None:
        last.feed(chunk)
        return write(chunk)

    return watched
