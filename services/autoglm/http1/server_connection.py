"""A client's connection: requests in, one exchange after another, and its bounds and timeouts.

Pipelined requests are handled in order, one at a time; the connection stops reading while several
wait. After a rejection whose body has not arrived the connection is closed, and what the client
still sends is discarded for a moment, so that it can read the response.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Protocol, cast

import httptools

from autoglm.http1.exchange import BadBody, ClientDisconnected, Exchange
from autoglm.http1.heads import MAX_HEAD_BYTES
from autoglm.http1.rules import Handler, Reject, Timeouts, check_head

# Pipelined requests that may wait; then the rest is parsed when they have been handled.
_MAX_WAITING = 8
_SLICE_BYTES = 16 * 1024
# Chunk framing and trailers: a client that sends single bytes needs five bytes of it for each.
_FREE_FRAMING_BYTES, _FRAMING_RATIO = 16 * 1024, 8
_LINGER_BYTES = 1024 * 1024
_log = logging.getLogger("autoglm.http1")


class Owner(Protocol):
    """The server of a connection."""

    handler: Handler
    reject: Reject
    timeouts: Timeouts
    is_draining: bool
    clock: Callable[[], float]

    def add(self, connection: ServerConnection, /) -> None: ...

    def turn_away(self, connection: ServerConnection, /) -> None: ...

    def remove(self, connection: ServerConnection, /) -> None: ...


class ServerConnection(asyncio.Protocol):
    """One connection of a server."""

    def __init__(self, server: Owner, *, is_full: bool = False, limit: int = 0) -> None:
        self._server = server
        self._is_full, self._limit = is_full, limit
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        """Runs the handler of the active exchange."""
        self._active: Exchange | None = None
        """The exchange whose handler runs."""
        self._reading: Exchange | None = None
        """The exchange whose body arrives."""
        self._waiting: deque[Exchange] = deque()
        self._backlog: deque[bytes] = deque()
        """Bytes behind requests that wait."""
        self._raw_left = 0
        """Bytes of a body that llhttp does not parse, behind an ignored Upgrade."""
        self._target, self._fields = b"", list[tuple[bytes, bytes]]()
        self._in_head = True
        self._head_bytes = self._wire_bytes = self._body_bytes = 0
        self._since = server.clock()
        """When what the connection waits for began: a head, a body, or the next request."""
        self._has_begun = False
        """Whether bytes of the next head have arrived."""
        self._seen_bytes = 0
        self._blocked_since: float | None = None
        self._is_paused = False
        self._is_ending = False
        """Whether the last response was sent: whatever arrives is discarded."""
        self._discarded = 0
        self.can_write: asyncio.Future[None] | None = None
        self.is_lost = False
        """Whether nothing that is written now can arrive."""
        self.stalled_seconds = 0.0
        self.is_local = False
        self.peer = ""

    @property
    def is_draining(self) -> bool:
        return self._server.is_draining

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance: uvloop's transports are classes of their own.
        self._transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else ""
        own = transport.get_extra_info("sockname")
        self.is_local = not isinstance(address, tuple) and not isinstance(own, tuple)
        if self._is_full:
            self._server.turn_away(self)
            self._discard()
            self._reject(
                429, f"the server has {self._limit} connections, its limit; try again later"
            )
            return
        self._server.add(self)

    def data_received(self, data: bytes) -> None:
        if self.is_lost:
            return
        if self._is_ending:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self.abort()
            return
        if self._backlog:
            self._backlog.append(data)
            return
        self._parse(data)

    def eof_received(self) -> None:
        """Close the connection: a client that has ended its side is gone."""

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._server.remove(self)
        self.resume_writing()
        self._waiting.clear()
        self._backlog.clear()
        for exchange in {self._active, self._reading}:
            if exchange is not None:
                exchange.fail(ClientDisconnected("the client disconnected"))
        if self.task is not None:
            self.task.cancel()
        # It refers to the connection, and neither would be freed without a garbage collection.
        del self._parser

    def pause_writing(self) -> None:
        self.can_write = asyncio.get_running_loop().create_future()
        self._blocked_since = self._server.clock()

    def resume_writing(self) -> None:
        waiter, self.can_write, self._blocked_since = self.can_write, None, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # Parsing

    def _parse(self, data: bytes) -> None:
        """Parse until too many requests wait; the rest stays in the backlog."""
        view = memoryview(data)
        while view:
            if self._is_ending or self.is_lost:
                return
            if len(self._waiting) >= _MAX_WAITING:
                self._backlog.appendleft(bytes(view))
                self.pause_reading()
                return
            # A slice, since it may have the heads of hundreds of small requests.
            view = view[self._feed(view[:_SLICE_BYTES]) :]

    def _feed(self, data: memoryview) -> int:
        """Parse some bytes, and return how many were used."""
        if self._raw_left:
            used = min(self._raw_left, len(data))
            self._raw_left -= used
            self.on_body(bytes(data[:used]))
            if not self._raw_left:
                self._end_body()
            return used
        if self._in_head:
            self._note_begin()
            self._head_bytes += len(data)
        else:
            self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, BadBody):
                self._invalid(cause.status, str(cause))
            elif cause is not None:
                raise cause from error
            else:
                self._invalid(400, f"the request is not valid HTTP/1.1: {error}")
            return len(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._invalid(431, _LONG_HEAD)
        elif self._wire_bytes - self._body_bytes > (
            _FREE_FRAMING_BYTES + _FRAMING_RATIO * self._body_bytes
        ):
            self._invalid(400, "the body's chunks have too much framing; send larger chunks")
        return len(data)

    def on_message_begin(self) -> None:
        self._target, self._fields = b"", []
        self._in_head = True
        self._note_begin()

    def _note_begin(self) -> None:
        if not self._has_begun:
            self._has_begun, self._since = True, self._server.clock()

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields behind the body are trailers, which no API has.
        if self._in_head:
            # llhttp leaves white space behind the value.
            self._fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser, fields = self._parser, self._fields
        self._in_head, self._has_begun = False, False
        self._head_bytes = self._wire_bytes = self._body_bytes = 0
        if len(self._target) + sum(map(len, chain.from_iterable(fields))) > MAX_HEAD_BYTES:
            raise BadBody(431, _LONG_HEAD)
        method, version = parser.get_method().decode(), parser.get_http_version()
        announced, waits_for_continue = check_head(method, version, fields)
        exchange = Exchange(self, method, self._target, fields)
        exchange.is_http10 = version == "1.0"
        exchange.is_kept_alive = parser.should_keep_alive()
        exchange.announced, exchange.waits_for_continue = announced, waits_for_continue
        if parser.should_upgrade():
            # An Upgrade is ignored, as RFC 9110 (7.8) allows; llhttp ends the message here.
            self._raw_left = announced
        self._reading = exchange
        self._since, self._seen_bytes = self._server.clock(), 0
        self._waiting.append(exchange)
        if self._active is None:
            self._next()

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        if self._reading is not None:
            self._reading.feed(piece)

    def on_message_complete(self) -> None:
        if not self._raw_left:
            self._end_body()

    def _end_body(self) -> None:
        exchange, self._reading = self._reading, None
        self._in_head, self._has_begun, self._head_bytes = True, False, 0
        self._wire_bytes = self._body_bytes = 0
        self._target, self._fields = b"", []
        if exchange is not None:
            exchange.end()

    def _invalid(self, status: int, why: str) -> None:
        """End the connection over invalid bytes, behind the responses that are due."""
        reading, self._reading = self._reading, None
        if reading is not None:
            # Its handler responds, in the error format of its API.
            reading.is_kept_alive = False
            reading.fail(BadBody(status, why))
            self._discard()
        elif self._active is None and not self._waiting:
            self._discard()
            self._reject(status, why)
        else:
            last = self._waiting[-1] if self._waiting else self._active
            assert last is not None
            last.is_kept_alive = False
            self._discard()

    def _discard(self) -> None:
        self._is_ending = True
        self._since = self._server.clock()

    def _reject(self, status: int, why: str) -> None:
        """Respond to a request that has no exchange, and close."""
        exchange = Exchange(self, "", self._target, self._fields)
        exchange.is_kept_alive = False
        self._server.reject(exchange, status, why)
        self._close_gently()

    # Exchanges

    def _next(self) -> None:
        exchange = self._active = self._waiting.popleft()
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._serve(exchange))

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._server.handler(exchange)
            if not exchange.is_finished and not self.is_lost:
                _log.error("a handler ended without a whole response")
                self.abort()
        except ClientDisconnected:
            self.abort()
        except Exception as error:
            _log.error("unexpected error in a handler", exc_info=error)
            self.abort()
        finally:
            self.task = None
            self._active = None
        if not self.is_lost:
            self._after(exchange)

    def _after(self, exchange: Exchange) -> None:
        if not exchange.is_kept_alive or (self.is_draining and not self._waiting):
            self._close_gently()
            return
        self._since = self._server.clock()
        if not exchange.is_complete:
            exchange.discard()
        if self._waiting:
            self._next()
        if self._backlog and len(self._waiting) < _MAX_WAITING:
            backlog, self._backlog = b"".join(self._backlog), deque()
            self.resume_reading()
            self._parse(backlog)

    def _close_gently(self) -> None:
        """Close behind the response.

        Where the client may still be sending, a reset would destroy the response on its way: so
        only this side ends, and what arrives is discarded for a moment.
        """
        if self._transport is None or (self._reading is None and not self._is_ending):
            self.close()
            return
        self._discard()
        self._reading = None
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    # Transport

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.is_lost:
            self._transport.write(data)

    def pause_reading(self) -> None:
        self._is_paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._seen_bytes, self._since = self._body_bytes, self._server.clock()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close behind what was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now; what was written may be lost."""
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        if self._active is None and not self._has_begun:
            self.close()

    def check(self, now: float) -> None:
        """Apply the timeouts. Called every second."""
        limits = self._server.timeouts
        if self.is_lost:
            return
        if self._blocked_since is not None:
            if now - self._blocked_since > limits.write:
                self.stalled_seconds = limits.write
                self.abort()
            return
        waited = now - self._since
        if self._is_ending:
            if self._active is None and waited > limits.linger:
                self.abort()
        elif self._reading is not None:
            if self._is_paused or self._reading.waits_for_continue:
                # The handler does not take the body yet: the client cannot send it.
                self._since, self._seen_bytes = now, self._body_bytes
            elif waited > limits.body:
                if self._body_bytes - self._seen_bytes < limits.min_body_bytes:
                    self._invalid(
                        408,
                        f"less than {limits.min_body_bytes} bytes of the body "
                        f"arrived within {limits.body:g} s",
                    )
                self._since, self._seen_bytes = now, self._body_bytes
        elif self._active is None and self._has_begun:
            if waited > limits.head:
                self._invalid(408, f"the head did not arrive within {limits.head:g} s")
        elif self._active is None and waited > limits.idle:
            self.close()


_LONG_HEAD = f"the request's head has more than {MAX_HEAD_BYTES} bytes, the limit"
