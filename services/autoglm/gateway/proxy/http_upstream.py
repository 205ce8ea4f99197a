"""Sends HTTP requests to endpoints and forwards the responses as bytes: the HTTP `Upstream`.

Maps failures (`RetryElsewhere` before the first byte, `StreamBroken` after it) and decides which
headers are forwarded. Never parses a body, picks an endpoint or retries: the proxy does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from autoglm.common import errors
from autoglm.common.process import LOCAL_SHORTAGE
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, no_fallbacks
from autoglm.gateway.request.event_stream import LastEvent
from autoglm.gateway.request.request import GatewayRequest, Response
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
_LARGE_BYTES = 256 * 1024
_PIECE_BYTES = 64 * 1024
# Hop-by-hop headers (RFC 9110, 7.6.1), and those that each hop sets itself.
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
        "date",
        "server",
        *UPSTREAM_CORS_HEADERS,
        "x-request-id",
    )
)


# `retry-after` is set separately: the soonest of all servers.
_OF_BODY = ("etag", "last-modified", "retry-after", "vary")


def client_session(tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """Return a session without cookies and without connection limits, which admission sets."""
    connector = aiohttp.TCPConnector(
        limit=0, ssl=tls or True, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=10
    )
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent",),
        trace_configs=[tracing],
    )


async def _note_reuse(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    # Polls of watches share the session and keep no record.
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.reused = True


def relayed_headers(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return a response's headers without hop-by-hop headers."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _NOT_RELAYED and name.lower() not in named
    }


class HttpUpstream:
    """An `Upstream` over one client session. The HTTP method is the first word of the route.

    `key` is sent to OpenAI servers in place of the caller's credentials.
    """

    def __init__(self, session: aiohttp.ClientSession, key: UpstreamKey | None = None) -> None:
        self._session = session
        self._key = key or UpstreamKey()

    @asynccontextmanager
    async def __call__(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> AsyncIterator[Response]:
        context = SimpleNamespace(reused=False)
        response, first = await self._begin(request, endpoint, headers, timeout, context)
        try:
            yield Response(
                _chunks(response, first, endpoint, request.target),
                status=response.status,
                headers=relayed_headers(response.headers),
            )
        finally:
            if response.content.is_eof():
                response.release()
            else:
                # The closed connection cancels the request in the pod.
                response.close()

    def _key_for(self, endpoint: EndpointView) -> Mapping[str, str]:
        return self._key.headers if endpoint.endpoint.kind == "openai" else {}

    async def _begin(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        context: SimpleNamespace,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Return the response with its first bytes. Raises RetryElsewhere or DeadlineExceeded."""
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._session.request(
                request.route.partition(" ")[0],
                endpoint.http_base + request.target,
                data=_body(request.payload),
                headers=_sent(request.headers, headers, self._key_for(endpoint)),
                timeout=aiohttp.ClientTimeout(timeout, sock_connect=CONNECT_SECONDS),
                allow_redirects=False,
                trace_request_ctx=context,
            )
            if response.status == errors.NoReadyEndpoint.http_status:
                raise await _unavailable(response)
            if response.status in _NO_SUCH_PATH:
                return response, await _own_error(response, request)
            return response, await _first_bytes(response, request)
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, aiohttp.ClientError | TimeoutError):
                raise _before_first_byte(error, endpoint, context.reused) from error
            raise


async def _first_bytes(response: aiohttp.ClientResponse, request: GatewayRequest) -> bytes:
    """Read the first bytes of a stream, or the whole of another response, unless it is long.

    A response that was not forwarded yet can be retried when it breaks.
    """
    first = await response.content.readany()
    is_stream = response.content_type in _STREAMS or (
        request.info is not None and request.info.streaming
    )
    if is_stream or not first:
        return first
    parts, size = [first], len(first)
    while size <= _WHOLE_BYTES and (part := await response.content.readany()):
        parts.append(part)
        size += len(part)
        if not request.hold.try_take(len(part)):
            break
    return b"".join(parts)


def _body(payload: bytes) -> bytes | _LargeBody | None:
    return _LargeBody(payload) if len(payload) > _LARGE_BYTES else payload or None


class _LargeBody(aiohttp.payload.Payload):
    """Writes a body in pieces, so that other requests run in between; never copies the whole."""

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None
    ) -> None:
        view = memoryview(self._value)[:content_length]
        for start in range(0, len(view), _PIECE_BYTES):
            await writer.write(view[start : start + _PIECE_BYTES])
            await asyncio.sleep(0)


def _sent(*parts: Mapping[str, str]) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    for part in parts:
        headers.update(part)
    # Bytes are forwarded unchanged; the edge compresses for clients that accept it.
    headers["accept-encoding"] = "identity"
    return headers


def _before_first_byte(
    error: aiohttp.ClientError | TimeoutError, endpoint: EndpointView, reused: bool
) -> Exception:
    if isinstance(error, OSError) and error.errno in LOCAL_SHORTAGE:
        # The endpoint is healthy.
        full = errors.QueueFull(
            f"the gateway cannot open another connection: {error.strerror}", retry_after=1.0
        )
        return RetryElsewhere(full)
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return errors.DeadlineExceeded("the deadline passed before the pod responded")
    unreachable = errors.NoReadyEndpoint(f"{endpoint.url} did not respond: {error}")
    # A healthy pod may have closed a connection that was idle.
    gone = not (reused and isinstance(error, aiohttp.ServerConnectionError))
    return RetryElsewhere(unreachable, gone=gone)


async def _own_error(response: aiohttp.ClientResponse, request: GatewayRequest) -> bytes:
    """Return the body of an API error. Raises Unimplemented for an error of the framework."""
    body = await response.content.read(_MAX_ERROR_BYTES)
    try:
        if "error" in json.loads(body):
            return body
    except (ValueError, TypeError, RecursionError):
        pass  # Not the API's shape of errors, so the server does not know the path.
    raise errors.Unimplemented(f"the server of {request.model!r} has no {request.route}")


async def _unavailable(response: aiohttp.ClientResponse) -> RetryElsewhere:
    """Return the error for a 503: the pod accepts no requests now and has begun nothing."""
    body = await response.content.read(_MAX_ERROR_BYTES)
    try:
        error = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        code, message = "", "the endpoint takes no requests now"
    draining = code == errors.ShuttingDown.reason.lower()
    wait = retry_after_seconds(response.headers.get("retry-after", ""), time.time())
    error = errors.NoReadyEndpoint(message, retry_after=wait)
    error.headers = _without_body(relayed_headers(response.headers))
    elsewhere_only = wait is not None
    return RetryElsewhere(error, draining=draining, elsewhere_only=elsewhere_only, refused=True)


def _without_body(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that also apply to the gateway's own error body."""
    named = {name.lower(): value for name, value in headers.items()}
    return {k: v for k, v in named.items() if not k.startswith("content-") and k not in _OF_BODY}


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


def _is_framed(response: aiohttp.ClientResponse) -> bool:
    """Return whether HTTP's framing shows an incomplete response, or it is no event stream."""
    names = ("content-length", "transfer-encoding")
    is_stream = response.status == 200 and response.content_type == EVENT_STREAM
    return not is_stream or any(name in response.headers for name in names)


async def _chunks(
    response: aiohttp.ClientResponse, first: bytes, endpoint: EndpointView, target: str
) -> AsyncIterator[bytes]:
    last = LastEvent("" if _is_framed(response) else target)
    if first:
        last.feed(first)
        yield first
    try:
        while chunk := await response.content.readany():
            last.feed(chunk)
            yield chunk
        if last.is_missing:
            raise errors.StreamBroken(f"{endpoint.url} ended the stream before its last event")
    except TimeoutError as error:
        raise errors.DeadlineExceeded("the deadline passed during the response") from error
    except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
        raise errors.StreamBroken(
            f"{endpoint.url} disconnected during the response: {error}"
        ) from error
