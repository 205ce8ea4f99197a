"""Writes responses of the gateway's REST port. Called by the REST edge.

Responses of known length are buffered, so that a broken one becomes an error response; others are
streamed, and a broken one ends with an error event or a closed connection.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Mapping
from typing import Any, cast

import msgspec

from autoglm.common import errors
from autoglm.gateway.edges.rest_request import OFF_LOOP_BYTES, HttpRequest
from autoglm.gateway.request.event_stream import WholeEvents, is_event_stream
from autoglm.gateway.request.http_usage import WHOLE_BYTES, UsageReader, usage_of_body
from autoglm.gateway.request.request import (
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
    body_of,
    whole,
)
from autoglm.http1.exchange import ClientDisconnected
from autoglm.http1.heads import Fields
from autoglm.validation import Billing, http_errors

JSON = "application/json"
# Smaller responses gain nothing from compression.
GZIP_FROM_BYTES = 1024
_GZIP = 16 + zlib.MAX_WBITS
_log = logging.getLogger("autoglm.gateway")


async def respond(http: HttpRequest, request: GatewayRequest, handler: Handler) -> None:
    """Send the handler's response, or its error. Raises ClientDisconnected."""
    sender = _Sender(http, request, RequestRecord())
    try:
        await handler(request, sender.record, sender.deliver)
    except errors.AutoGLMError as error:
        errors.forget_frames(error)
        if http.exchange.is_started:
            _end_broken(http, error, sender.events)
        else:
            send_error(http, error)
        return
    if sender.whole is not None:
        await _send_whole(http, *sender.whole)


class _Sender:
    """Sends one response of the pipeline to the client.

    A whole one is sent when the pipeline has ended: until then it may become an error.
    """

    __slots__ = (
        "_exchange",
        "_http",
        "_packer",
        "_reader",
        "_request",
        "events",
        "record",
        "whole",
    )

    def __init__(self, http: HttpRequest, request: GatewayRequest, record: RequestRecord) -> None:
        self._http, self._exchange, self._request = http, http.exchange, request
        self._packer: Any = None
        self._reader: UsageReader | None = None
        self.record = record
        self.events: WholeEvents | None = None
        self.whole: tuple[Response, bytes] | None = None

    async def deliver(self, response: Response) -> None:
        """Send a stream, or read a whole body. Raises Cancelled."""
        reads_usage = _reads_usage(self._request, self.record, response)
        length, headers = _known_length(response), response.headers
        if length is not None and length <= WHOLE_BYTES:
            # Buffered, so that a broken one becomes an error response.
            body = await body_of(response)
            self.whole = (response, body)
            if reads_usage:
                self.record.usage = usage_of_body(headers, body)
            return
        if reads_usage:
            self._reader = UsageReader(is_stream=is_event_stream(headers), headers=headers)
        await self._stream(response, length)
        if self._reader is not None:
            self.record.usage = self._reader.usage()

    async def _stream(self, response: Response, length: int | None) -> None:
        """Send the chunks as they arrive, or compressed."""
        http, exchange = self._http, self._exchange
        self.events = WholeEvents() if is_event_stream(response.headers) else None
        headers = _headers(response)
        if self.events is None and _may_compress(http, response):
            self._packer, length = zlib.compressobj(wbits=_GZIP), None
            headers["content-encoding"] = "gzip"
        try:
            exchange.start(response.status, fields_of(http, headers, response.cookies), length)
            await response.forward(self._write if self._packer is None else self._write_packed)
            rest = b"" if self.events is None else self.events.rest()
            if self._reader is not None:
                self._reader.add(rest)
            exchange.finish(rest if self._packer is None else self._packer.flush())
            if exchange.is_blocked:
                await exchange.drain()
        except ClientDisconnected as error:
            raise errors.Cancelled(str(error)) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if not exchange.stalled_seconds or task is None:
                raise
            task.uncancel()
            why = f"the client read nothing for {exchange.stalled_seconds:g} s"
            raise errors.Cancelled(why) from error

    def _write(self, chunk: bytes) -> Awaitable[None] | None:
        if self.events is not None:
            chunk = self.events.feed(chunk)
            if not chunk:
                return None
        if self._reader is not None:
            self._reader.add(chunk)
        exchange = self._exchange
        exchange.write(chunk)
        return exchange.drain() if exchange.is_blocked else None

    async def _write_packed(self, chunk: bytes) -> None:
        if self._reader is not None:
            self._reader.add(chunk)
        if packed := await _packed(self._packer, chunk):
            self._exchange.write(packed)
        if self._exchange.is_blocked:
            await self._exchange.drain()


def _end_broken(http: HttpRequest, error: errors.AutoGLMError, events: WholeEvents | None) -> None:
    """End a response that has begun: with an error event, or else with a broken connection."""
    if events is None or isinstance(error, errors.Cancelled):
        http.exchange.abort()
        return
    event = http_errors.stream_event(error, http.request_id, http.path, events.last)
    # A blank line first: the last chunk may be part of a very long event.
    http.exchange.finish(b"\n\n" + event)


async def _send_whole(http: HttpRequest, response: Response, body: bytes) -> None:
    headers, length = _headers(response), len(body)
    if http.method == "HEAD":
        # That of the body which GET has.
        length = _known_length(response) or 0
    elif length >= GZIP_FROM_BYTES and _may_compress(http, response):
        packer = zlib.compressobj(wbits=_GZIP)
        body = await _packed(packer, body) + packer.flush()
        headers["content-encoding"], length = "gzip", len(body)
    http.exchange.start(response.status, fields_of(http, headers, response.cookies), length)
    http.exchange.finish(body)


async def _packed(packer: Any, data: bytes) -> bytes:
    """Compress, long pieces on a thread."""
    if len(data) <= OFF_LOOP_BYTES:
        return cast(bytes, packer.compress(data))
    return cast(bytes, await asyncio.to_thread(packer.compress, data))


def _reads_usage(request: GatewayRequest, record: RequestRecord, response: Response) -> bool:
    """Return whether to read the usage of a pod's response here, as no layer reads it."""
    if record.is_metered or request.continues or request.info is not None:
        return False
    info = record.request.info if record.request is not None else None
    return info is not None and info.billing is not Billing.FREE and response.status < 400


def _known_length(response: Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


def _headers(response: Response) -> dict[str, str]:
    headers = dict(response.headers)
    headers.pop("content-length", None)
    if response.status == errors.Unimplemented.http_status:
        headers[http_errors.SHOULD_RETRY] = "false"
    if is_event_stream(response.headers):
        headers = {**http_errors.STREAM_HEADERS, **headers}
    return headers


def fields_of(http: HttpRequest, headers: dict[str, str], cookies: tuple[str, ...] = ()) -> Fields:
    """Return the fields of a response: these, the request id, cookies, and those for browsers."""
    headers |= http_errors.request_id_headers(http.request_id, http.path)
    if http.cors.origins:
        for name, value in http.cors.response_headers(http.headers.get("origin", "")).items():
            given = headers.get(name) if name == "vary" else None
            headers[name] = f"{given}, {value}" if given and given != value else value
    fields = [(k.encode(), v.encode("utf-8", "surrogateescape")) for k, v in headers.items()]
    fields += [(b"set-cookie", cookie.encode("utf-8", "surrogateescape")) for cookie in cookies]
    return fields


def _may_compress(http: HttpRequest, response: Response) -> bool:
    wanted = http.headers.get("accept-encoding", "").lower()
    if "gzip" not in wanted or "content-encoding" in response.headers:
        return False
    return any(w.strip().split(";q=")[0] == "gzip" for w in wanted.split(",") if ";q=0" not in w)


def send(http: HttpRequest, code: int, headers: dict[str, str], body: bytes) -> None:
    """Send a whole response. Raises ClientDisconnected."""
    http.exchange.respond(code, fields_of(http, headers), body)


def send_error(http: HttpRequest, error: errors.AutoGLMError) -> None:
    """Send an error in the dialect of the path, unless a response has begun: that is aborted."""
    if http.exchange.is_started:
        http.exchange.abort()
        return
    rendered = http_errors.to_http(error, http.request_id, http.path)
    send(http, rendered.status, rendered.headers, rendered.body)


def send_json(http: HttpRequest, code: int, page: Mapping[str, object]) -> None:
    """Send a page of the gateway's own. Raises ClientDisconnected."""
    send(http, code, {"content-type": JSON}, msgspec.json.encode(page))


def json_body(page: Mapping[str, object]) -> Response:
    """Return a page as the response of a handler."""
    body = msgspec.json.encode(page)
    headers = {"content-type": JSON, "content-length": str(len(body))}
    return Response(whole(body), headers=headers)
