"""A client connection: one request at a time, and its response as it arrives.

Framing is llhttp's (strict mode). While a response is not read, at most `HIGH_WATER_BYTES` of it
are kept and the connection stops reading. Knows no pool and no retries.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import cast

import httptools

from autoglm.http1.body import BodyBuffer
from autoglm.http1.heads import MAX_HEAD_BYTES, Fields

_PIECE_BYTES = 64 * 1024
_CONTINUE, _SWITCHING, _FINAL = 100, 101, 200


class ConnectionLost(Exception):
    """The connection ended before the response was complete."""


class InvalidResponse(ConnectionLost):
    """The server sent something that is not HTTP/1.1."""


class Response(BodyBuffer):
    """One response. Its body is read by `read`; `close` ends it at any time.

    `is_framed` is false where only the end of the connection ends the body (HTTP/1.0). `head` and
    `read` raise ConnectionLost, or the error of `fail`.
    """

    __slots__ = ("_connection", "_timer", "fields", "is_framed", "is_http10", "status")

    def __init__(self, connection: Connection, ends_at: float) -> None:
        super().__init__(connection)
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None
        if ends_at != math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(ends_at, self._end_late)
        self.status = 0
        self.fields: Fields = []
        self.is_framed = True
        self.is_http10 = False

    def close(self) -> None:
        """End the exchange; the connection is reused where the response is complete."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection.release(self)

    def _end_late(self) -> None:
        self.fail(TimeoutError())
        # A body that is still being sent waits for the server to read.
        self._connection.resume_writing()

    async def head(self) -> None:
        """Wait for the final status and header fields."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    def begin(self, status: int, fields: Fields, is_framed: bool) -> None:
        """Take the head. Called by the connection."""
        self.status, self.fields, self.is_framed = status, fields, is_framed
        self._wake()


class Connection(asyncio.Protocol):
    """A connection to a server.

    `on_idle` is called when it can take another request, `on_lost` when it has ended.
    """

    def __init__(
        self, on_idle: Callable[[Connection], None], on_lost: Callable[[Connection], None]
    ) -> None:
        self._on_idle, self._on_lost = on_idle, on_lost
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._fields: Fields = []
        self._pieces: list[bytes] = []
        """Of the body, from the packet that is parsed now."""
        self._head_bytes = 0
        self._in_head = True
        self._is_head_request = False
        self._keeps_alive = False
        self.requests = 0
        """Requests that were sent on it, so that a broken one is known to be reused."""
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def send(
        self, head: bytes, body: bytes, ends_at: float = math.inf, *, is_head: bool = False
    ) -> Response:
        """Send a request and return its response with status and fields.

        A long body is written in pieces; an early response stops it. Raises ConnectionLost, and
        TimeoutError at `ends_at`, a time of the event loop. When cancelled, the connection is
        closed.
        """
        transport = self._transport
        assert self._response is None, "one request at a time"
        if transport is None:
            raise ConnectionLost("the connection was closed before the request was sent")
        self.requests += 1
        self._pieces = []
        self._is_head_request, self._in_head, self._head_bytes = is_head, True, 0
        self._keeps_alive = False
        response = self._response = Response(self, ends_at)
        try:
            if len(body) <= _PIECE_BYTES:
                transport.write(head + body)
            else:
                await self._write_pieces(transport, response, head, body)
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def _write_pieces(
        self, transport: asyncio.Transport, response: Response, head: bytes, body: bytes
    ) -> None:
        transport.write(head)
        view = memoryview(body)
        for start in range(0, len(view), _PIECE_BYTES):
            if response.status:
                self._keeps_alive = False
                return
            if response.has_failed or not self.is_open:
                return
            transport.write(view[start : start + _PIECE_BYTES])
            if self._can_write is not None:
                await self._can_write
            else:
                await asyncio.sleep(0)

    def release(self, response: Response) -> None:
        """End the exchange: keep the connection if it is clean, else close it."""
        if self._response is not response:
            return
        self._response = None
        if response.is_complete and self._keeps_alive and self.is_open:
            self.resume_reading()
            self._on_idle(self)
        else:
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance: uvloop's transports are classes of their own.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            # Bytes that no request expects: what follows could be taken for a response.
            self.close()
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._pieces:
                self._feed()
        except httptools.HttpParserUpgrade:
            self._break(InvalidResponse("it switched protocols without being requested to"))
        except httptools.HttpParserError as error:
            self._feed()
            if self._response is None or self._response.is_complete:
                # Behind a complete response: only the connection is lost.
                self._keeps_alive = False
                self.close()
            else:
                self._break(InvalidResponse(f"its response is not HTTP/1.1: {_reason(error)}"))
        else:
            if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._break(InvalidResponse(_LONG_HEAD))

    def eof_received(self) -> None:
        response = self._response
        if response is not None and response.status and not response.is_framed:
            response.end()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        response = self._response
        if response is not None and not response.is_complete:
            which = "the response was complete" if response.status else "the response began"
            why = str(error) if error else f"the connection was closed before {which}"
            response.fail(ConnectionLost(why))
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _break(self, error: ConnectionLost) -> None:
        if self._response is not None:
            self._response.fail(error)
        self.close()

    # httptools

    def on_message_begin(self) -> None:
        self._fields = []
        if self._response is not None and self._response.is_complete:
            raise ValueError("a second response")
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            # llhttp leaves white space behind the value.
            self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        response = self._response
        if response is None or _CONTINUE <= status < _FINAL:
            return
        fields = self._fields
        self._in_head = False
        # What came with the head may be of the body.
        if self._head_bytes > MAX_HEAD_BYTES and sum(map(len, chain(*fields))) > MAX_HEAD_BYTES:
            raise ValueError(_LONG_HEAD)
        self._keeps_alive = self._parser.should_keep_alive()
        named = dict(fields)
        is_framed = bool(named.get(b"content-length")) or _is_chunked(named)
        response.is_http10 = self._parser.get_http_version() == "1.0"
        response.begin(status, fields, is_framed or status in (204, 304))
        if self._is_head_request:
            # llhttp would wait for the body that the fields announce.
            self._keeps_alive = False
            response.end()

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def _feed(self) -> None:
        """Give the response what one packet brought, as one piece."""
        pieces, self._pieces = self._pieces, []
        response = self._response
        if pieces and response is not None and not response.is_complete:
            response.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def on_message_complete(self) -> None:
        response = self._response
        if self._pieces:
            self._feed()
        if response is not None and response.status:
            response.end()


_LONG_HEAD = f"the head of its response has more than {MAX_HEAD_BYTES} bytes"


def _is_chunked(named: Mapping[bytes, bytes]) -> bool:
    return named.get(b"transfer-encoding", b"").strip().lower().endswith(b"chunked")


def _reason(error: httptools.HttpParserError) -> str:
    return str(error.__context__ or error)
