"""Writes responses of the gateway's REST port. Called by the REST edge.

Responses of known length are buffered, so that a broken one becomes an error response; others are
streamed, and a broken one ends with an error event or a closed connection.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, cast

import msgspec
from aiohttp import web

from autoglm.common import errors
from autoglm.gateway.edges.rest_request import request_id_of
from autoglm.gateway.edges.slow_client import SlowReader
from autoglm.gateway.request.event_stream import WholeEvents, is_event_stream
from autoglm.gateway.request.http_usage import UsageReader
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response
from autoglm.validation import Billing, http_errors

JSON = "application/json"
# Smaller responses gain nothing from compression.
GZIP_FROM_BYTES = 1024
# Responses of known length up to this are buffered.
_WHOLE_BYTES = 1024 * 1024
_log = logging.getLogger("autoglm.gateway")


async def respond(
    http_request: web.Request, request: GatewayRequest, handler: Handler, slow_reader_seconds: float
) -> web.StreamResponse:
    http_response: web.StreamResponse | None = None
    record, events = RequestRecord(), WholeEvents()
    try:
        async with handler(request, record) as response, _closing(response.chunks) as chunks:
            reader = _reader(request, record, response)
            if (length := _known_length(response)) is not None and length <= _WHOLE_BYTES:
                body = b"".join([chunk async for chunk in chunks])
                if reader is not None:
                    reader.add(body)
                    record.usage = reader.usage()
                return _whole(http_request, request, response, body)
            http_response = _head(http_request, request, response)
            if is_event_stream(response.headers):
                chunks = _whole_events(chunks, events)
            with SlowReader(slow_reader_seconds) as slow:
                slow.begin()
                await _send(http_response.prepare(http_request))
                slow.end()
                async for chunk in chunks:
                    slow.begin()
                    await _send(http_response.write(chunk))
                    slow.end()
                    if reader is not None:
                        reader.add(chunk)
                slow.begin()
                await _send(http_response.write_eof())
            if reader is not None:
                record.usage = reader.usage()
            return http_response
    except errors.AutoGLMError as error:
        errors.forget_frames(error)
        if http_response is None or not http_response.prepared:
            return error_response(http_request, error, request.request_id)
        return await _end_broken(http_request, http_response, error, request, events.last)


async def _whole_events(chunks: AsyncIterator[bytes], events: WholeEvents) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if whole := events.feed(chunk):
            yield whole
    if rest := events.rest():
        yield rest


def _reader(
    request: GatewayRequest, record: RequestRecord, response: Response
) -> UsageReader | None:
    """Return a reader for the usage of a pod's response, where no layer reads it."""
    if record.is_metered or request.continues or request.info is not None:
        return None
    info = record.request.info if record.request is not None else None
    if info is None or info.billing is Billing.FREE or response.status >= 400:
        return None
    return UsageReader(is_stream=is_event_stream(response.headers), headers=response.headers)


def _closing(chunks: AsyncIterator[bytes]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    return cast(AbstractAsyncContextManager[AsyncIterator[bytes]], aclosing(cast(Any, chunks)))


async def _send(writing: Awaitable[object]) -> None:
    try:
        await writing
    except ConnectionError as error:
        raise errors.Cancelled("the client disconnected") from error


def _known_length(response: Response) -> int | None:
    length = next((v for k, v in response.headers.items() if k.lower() == "content-length"), "")
    return int(length) if length.isdecimal() else None


def _headers(request: GatewayRequest, response: Response) -> dict[str, str]:
    own = http_errors.request_id_headers(request.request_id, request.target)
    if response.status == errors.Unimplemented.http_status:
        own[http_errors.SHOULD_RETRY] = "false"
    kept = {
        name: value
        for name, value in response.headers.items()
        if name.lower() != "content-length" and name.lower() not in own
    }
    if is_event_stream(response.headers):
        given = {name.lower() for name in kept}
        own |= {k: v for k, v in http_errors.STREAM_HEADERS.items() if k not in given}
    return kept | own


def _whole(
    http_request: web.Request, request: GatewayRequest, response: Response, body: bytes
) -> web.Response:
    http_response = web.Response(
        body=body, status=response.status, headers=_headers(request, response)
    )
    if len(body) >= GZIP_FROM_BYTES and _may_compress(http_request, response):
        http_response.enable_compression(web.ContentCoding.gzip)
    return http_response


def _head(
    http_request: web.Request, request: GatewayRequest, response: Response
) -> web.StreamResponse:
    http_response = web.StreamResponse(status=response.status, headers=_headers(request, response))
    if http_response.content_type != http_errors.EVENT_STREAM and _may_compress(
        http_request, response
    ):
        http_response.enable_compression(web.ContentCoding.gzip)
    elif (length := _known_length(response)) is not None:
        http_response.content_length = length
    return http_response


def _may_compress(http_request: web.Request, response: Response) -> bool:
    encoded = any(name.lower() == "content-encoding" for name in response.headers)
    wanted = http_request.headers.get("accept-encoding", "").lower().split(",")
    return not encoded and any(
        w.strip().split(";q=")[0] == "gzip" for w in wanted if ";q=0" not in w
    )


async def _end_broken(
    http_request: web.Request,
    http_response: web.StreamResponse,
    error: errors.AutoGLMError,
    request: GatewayRequest,
    before: bytes,
) -> web.StreamResponse:
    """End a response that has begun: with an error event, or else with a broken connection."""
    is_stream = http_response.content_type == http_errors.EVENT_STREAM
    if is_stream and not isinstance(error, errors.Cancelled):
        event = http_errors.stream_event(error, request.request_id, request.target, before)
        # A blank line first: the last chunk may be part of a very long event.
        await _send_or_leave(http_response.write(b"\n\n" + event))
        await _send_or_leave(http_response.write_eof())
    elif http_request.transport is not None:
        http_request.transport.abort()
    return http_response


async def _send_or_leave(writing: Awaitable[object]) -> None:
    """Send, and ignore that the client has disconnected too."""
    try:
        await writing
    except ConnectionError as error:
        _log.debug("client disconnected before the error was sent: %s", error)


def error_response(
    http_request: web.Request, error: errors.AutoGLMError, request_id: str = ""
) -> web.Response:
    request_id = request_id or request_id_of(http_request.headers)
    rendered = http_errors.to_http(error, request_id, http_request.path)
    http_response = web.Response(
        status=rendered.status, headers=rendered.headers, body=rendered.body
    )
    if isinstance(error, errors.RequestTooLarge):
        http_response.force_close()
    return http_response


def json_body(page: Mapping[str, object]) -> Response:
    body = msgspec.json.encode(page)

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return Response(chunks(), headers={"content-type": JSON, "content-length": str(len(body))})


def json_response(code: int, page: Mapping[str, object]) -> web.Response:
    return web.Response(status=code, body=msgspec.json.encode(page), content_type=JSON)
