"""Sends REST calls to endpoints and relays the answers as bytes: the HTTP `Upstream`.

Decides what a failed exchange means (`RetryElsewhere` before the first byte, `StreamBroken` after
it) and which headers travel. Never looks into bodies, never picks an endpoint, never retries: the
route layer does.
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
from autoglm.common.process import open_files
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, no_fallbacks
from autoglm.gateway.request.last_event import LastEvent
from autoglm.gateway.request.request import GatewayRequest, Response
from autoglm.validation.http_errors import EVENT_STREAM

# CORS headers of upstream servers, which do not hold for the gateway's origin.
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
# Answers up to this are had anew elsewhere when they break; longer ones are passed on as they come.
_WHOLE_BYTES = 4 * 1024 * 1024
_STREAMS = ("text/event-stream", "multipart/mixed", "application/x-ndjson")
_MAX_DIGITS = 9
_NO_SUCH_PATH = (404, 405)
_LARGE_BYTES = 256 * 1024
_PIECE_BYTES = 64 * 1024
# Headers of one connection (RFC 9110, 7.6.1), and those that each hop sets itself.
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
    """A session without limits of its own (admission bounds), without cookies and redirects."""
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
    """An answer's headers without those of the connection it came on."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _NOT_RELAYED and name.lower() not in named
    }


class HttpRelay:
    """An `Upstream` over one client session. A call's method is the first word of its route.

    `key` goes to OpenAI servers in place of the caller's credentials; pods get those as sent.
    """

    def __init__(self, session: aiohttp.ClientSession, key: UpstreamKey | None = None) -> None:
        self._session = session
        self._key = key or UpstreamKey()

    @asynccontextmanager
    async def __call__(
        self,
        call: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> AsyncIterator[Response]:
        context = SimpleNamespace(reused=False)
        response, first = await self._begin(call, endpoint, headers, timeout, context)
        try:
            yield Response(
                _chunks(response, first, endpoint, call.target),
                status=response.status,
                headers=relayed_headers(response.headers),
            )
        finally:
            if response.content.is_eof():
                response.release()
            else:
                # Closing the connection is how the pod learns that nobody listens any more.
                response.close()

    def _key_for(self, endpoint: EndpointView) -> Mapping[str, str]:
        return self._key.headers if endpoint.endpoint.kind == "openai" else {}

    async def _begin(
        self,
        call: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        context: SimpleNamespace,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """The response and its first bytes. Raises RetryElsewhere or DeadlineExceeded."""
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._session.request(
                call.route.partition(" ")[0],
                endpoint.http_base + call.target,
                data=_body(call.payload),
                headers=_sent(call.headers, headers, self._key_for(endpoint)),
                timeout=aiohttp.ClientTimeout(timeout, sock_connect=CONNECT_SECONDS),
                allow_redirects=False,
                trace_request_ctx=context,
            )
            if response.status == errors.NoReadyEndpoint.http_status:
                raise await _refused(response)
            if response.status in _NO_SUCH_PATH:
                return response, await _own_error(response, call)
            return response, await _first_bytes(response, call)
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, aiohttp.ClientError | TimeoutError):
                raise _before_first_byte(error, endpoint, context.reused) from error
            raise


async def _first_bytes(response: aiohttp.ClientResponse, call: GatewayRequest) -> bytes:
    """The beginning of a stream. All of another answer, unless it is long: it can be had anew."""
    first = await response.content.readany()
    is_stream = response.content_type in _STREAMS or (call.info is not None and call.info.streaming)
    if is_stream or not first:
        return first
    parts, size = [first], len(first)
    while size <= _WHOLE_BYTES and (part := await response.content.readany()):
        parts.append(part)
        size += len(part)
        if not call.hold.try_take(len(part)):
            break
    return b"".join(parts)


def _body(payload: bytes) -> bytes | _LargeBody | None:
    return _LargeBody(payload) if len(payload) > _LARGE_BYTES else payload or None


class _LargeBody(aiohttp.payload.Payload):
    """Written in pieces, with room for other requests in between; never copied as a whole."""

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
    # Bytes are relayed as they are; the edge compresses for those who ask for it.
    headers["accept-encoding"] = "identity"
    return headers


def _before_first_byte(
    error: aiohttp.ClientError | TimeoutError, endpoint: EndpointView, reused: bool
) -> Exception:
    if isinstance(error, OSError) and error.errno in open_files.LACKING:
        # Nothing is wrong with the endpoint.
        full = errors.QueueFull(
            f"the gateway cannot open another connection: {error.strerror}", retry_after=1.0
        )
        return RetryElsewhere(full)
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return errors.DeadlineExceeded("the deadline passed before the pod answered")
    unreachable = errors.NoReadyEndpoint(f"{endpoint.url} did not answer: {error}")
    # A connection that had been idle may have been closed by a pod in good health.
    gone = not (reused and isinstance(error, aiohttp.ServerConnectionError))
    return RetryElsewhere(unreachable, gone=gone)


async def _own_error(response: aiohttp.ClientResponse, call: GatewayRequest) -> bytes:
    """The body of an error of the API. Raises Unimplemented for one of the server's framework."""
    body = await response.content.read(_MAX_ERROR_BYTES)
    try:
        if "error" in json.loads(body):
            return body
    except (ValueError, TypeError, RecursionError):
        pass  # Not the API's shape of errors, so the server does not know the path.
    raise errors.Unimplemented(f"the server of {call.model!r} has no {call.route}")


async def _refused(response: aiohttp.ClientResponse) -> RetryElsewhere:
    """What a 503 means: the pod takes no requests now, and nothing was begun."""
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
    """The headers that hold for the error that the gateway writes in its own words."""
    named = {name.lower(): value for name, value in headers.items()}
    return {k: v for k, v in named.items() if not k.startswith("content-") and k not in _OF_BODY}


def retry_after_seconds(value: str, now: float) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); None where it has neither form.

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
    """Whether HTTP itself shows if the response is whole, or it is no event stream."""
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
        raise errors.DeadlineExceeded("the deadline passed while the answer was sent") from error
    except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
        raise errors.StreamBroken(f"{endpoint.url} went away during the answer: {error}") from error
