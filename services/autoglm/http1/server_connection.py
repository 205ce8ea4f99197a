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
from typing import Protocol, cast

from autoglm.http1.exchange import BadBody, ClientDisconnected, Exchange
from autoglm.http1.request_parser import RequestParser
from autoglm.http1.rules import CloseReason, Handler, Reject, Timeouts

# Pipelined requests that may wait; then the rest is parsed when they have been handled.
_MAX_WAITING = 8
_SLICE_BYTES = 16 * 1024
_LINGER_BYTES = 1024 * 1024
_log = logging.getLogger("autoglm.http1")


class Owner(Protocol):
    """The server of a connection."""

    handler: Handler
    reject: Reject
    timeouts: Timeouts
    is_draining: bool
    clock: Callable[[], float]

    def admit(self, connection: ServerConnection, /) -> str: ...

    def set_idle(self, connection: ServerConnection, /) -> None: ...

    def set_busy(self, connection: ServerConnection, /) -> None: ...

    def remove(self, connection: ServerConnection, /) -> None: ...


class ServerConnection(asyncio.Protocol):
    """One connection of a server. `peer` is the client's address where a proxy has named it."""

    def __init__(self, server: Owner, peer: str = "") -> None:
        self._server = server
        self._parser: RequestParser
        """Between the begin and the end of the connection: it refers to it."""
        self._transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        """Runs the handler of the active exchange."""
        self._active: Exchange | None = None
        """The exchange whose handler runs."""
        self._waiting: deque[Exchange] = deque()
        self._backlog: deque[bytes] = deque()
        """Bytes behind requests that wait."""
        self._since = server.clock()
        """When what the connection waits for began: a head, a body, or the next request."""
        self._seen_bytes = 0
        self._blocked_since: float | None = None
        self._is_paused = False
        self._is_ending = False
        """Whether the last response was sent: whatever arrives is discarded."""
        self._discarded = 0
        self.can_write: asyncio.Future[None] | None = None
        self.is_lost = False
        self.stalled_seconds = 0.0
        """How long the client had read nothing when the connection was ended for that."""
        self.peer = peer
        self.is_local = False
        self.reason: CloseReason | None = None
        """Why the connection is closed; None for its client's own will."""

    @property
    def is_draining(self) -> bool:
        return self._server.is_draining

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = RequestParser(self, self._begin, self._take, self._end)
        address = transport.get_extra_info("peername")
        if not self.peer and isinstance(address, tuple):
            self.peer = str(address[0])
        own = transport.get_extra_info("sockname")
        self.is_local = not isinstance(address, tuple) and not isinstance(own, tuple)
        why = self._server.admit(self)
        if why:
            self._discard()
            self._reject(429, why)

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
        for exchange in {self._active, self._parser.reading}:
            if exchange is not None:
                exchange.fail(ClientDisconnected("the client disconnected"))
        if self.task is not None:
            self.task.cancel()
        # Neither would be freed without a garbage collection.
        self._parser.close()
        del self._parser

    def pause_writing(self) -> None:
        self.can_write = asyncio.get_running_loop().create_future()
        self._blocked_since = self._server.clock()

    def resume_writing(self) -> None:
        waiter, self.can_write, self._blocked_since = self.can_write, None, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # Requests

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
            try:
                # A slice, since it may have the heads of hundreds of small requests.
                view = view[self._parser.feed(view[:_SLICE_BYTES]) :]
            except BadBody as error:
                self._invalid(error.status, str(error), "invalid")
                return

    def _begin(self) -> None:
        self._since = self._server.clock()
        self._server.set_busy(self)

    def _take(self, exchange: Exchange) -> None:
        self._since, self._seen_bytes = self._server.clock(), 0
        self._waiting.append(exchange)
        if self._active is None:
            self._next()

    def _end(self) -> None:
        if self._active is None and not self._waiting:
            # A body that its handler did not wait for.
            self._server.set_idle(self)

    def _invalid(self, status: int, why: str, reason: CloseReason) -> None:
        """End the connection over invalid bytes, behind the responses that are due."""
        self.reason = self.reason or reason
        reading, self._parser.reading = self._parser.reading, None
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
        exchange = Exchange(self, "", self._parser.target, self._parser.fields)
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
            self.reason = self.reason or ("drain" if self.is_draining else "finished")
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
        if self.is_idle:
            self._server.set_idle(self)

    def _close_gently(self) -> None:
        """Close behind the response.

        Where the client may still be sending, a reset would destroy the response on its way: so
        only this side ends, and what arrives is discarded for a moment.
        """
        if self._transport is None or (self._parser.reading is None and not self._is_ending):
            self.close()
            return
        self._discard()
        self._parser.reading = None
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
        if self.is_lost:
            return
        self._seen_bytes, self._since = self._parser.body_bytes, self._server.clock()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close behind what was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now; what was written may be lost."""
        self.is_lost = True
        self.reason = self.reason or "aborted"
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_idle(self) -> bool:
        """Return whether the connection waits for its next request."""
        return (
            self._active is None
            and not self._waiting
            and not (self.is_lost or self._is_ending)
            and self._parser.reading is None
            and not self._parser.has_begun
        )

    def close_if_idle(self) -> None:
        """Close the connection where no request has begun, since the server stops."""
        if self._active is None and not self._parser.has_begun:
            self.end_idle("drain")

    def end_idle(self, reason: CloseReason) -> None:
        """Close an idle connection, and abort it later where its client does not read."""
        self.reason = reason
        self._discard()
        self.close()

    def check(self, now: float) -> None:
        """Apply the timeouts. Called every second."""
        if self.is_lost:
            return
        limits, parser = self._server.timeouts, self._parser
        if self._blocked_since is not None:
            if now - self._blocked_since > limits.write:
                self.stalled_seconds = limits.write
                self.reason = "stalled_reader"
                self.abort()
            return
        waited = now - self._since
        if self._is_ending:
            if self._active is None and waited > limits.linger:
                self.abort()
        elif parser.reading is not None:
            if self._is_paused or parser.reading.waits_for_continue:
                # The handler does not take the body yet: the client cannot send it.
                self._since, self._seen_bytes = now, parser.body_bytes
            elif waited > limits.body:
                if parser.body_bytes - self._seen_bytes < limits.min_body_bytes:
                    self._invalid(
                        408,
                        f"less than {limits.min_body_bytes} bytes of the body "
                        f"arrived within {limits.body:g} s",
                        "slow_body",
                    )
                self._since, self._seen_bytes = now, parser.body_bytes
        elif self._active is None and parser.has_begun:
            if waited > limits.head:
                self._invalid(408, f"the head did not arrive within {limits.head:g} s", "slow_head")
        elif self._active is None and waited > limits.idle:
            self.end_idle("idle")
