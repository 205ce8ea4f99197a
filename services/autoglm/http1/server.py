"""A server of HTTP/1.1 (RFC 9112) and 1.0 on llhttp in strict mode.

Bounds what a client may cost before its request is accepted: bytes of the head, of chunk framing
and of pipelined requests, and the time of the head, the body and an idle connection. Knows no
paths, errors of APIs or credentials: the handler does.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

from autoglm.http1.rules import DEFAULT_TIMEOUTS, Handler, Reject, Timeouts
from autoglm.http1.server_connection import ServerConnection

_SWEEP_SECONDS = 1.0
_BACKLOG = 1024
# Connections over the limit that are kept for a moment, so that their clients read why.
_MAX_TURNED_AWAY = 16
# In which cancelled handlers end.
_CANCEL_SECONDS = 1.0


class Server:
    """Listens on one address. `reject` responds to what does not reach the handler."""

    def __init__(
        self,
        handler: Handler,
        reject: Reject,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        max_connections: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.handler = handler
        self.reject = reject
        self.timeouts = timeouts
        self.is_draining = False
        self.connections: set[ServerConnection] = set()
        self.clock = clock
        self._max_connections = max_connections
        self._turned_away: dict[ServerConnection, None] = {}
        self._all_closed = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen, and return the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._accept,
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=self.timeouts.head if tls else None,
            backlog=_BACKLOG,
        )
        self._schedule()
        return int(self._listener.sockets[0].getsockname()[1])

    async def start_unix(self, path: str) -> None:
        """Listen on a Unix socket. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._accept, path, backlog=_BACKLOG)
        self._schedule()

    def begin_drain(self) -> None:
        """Close each connection with its next response, so that clients reconnect elsewhere.

        Idle ones stay open, since a request may be on its way.
        """
        self.is_draining = True

    async def stop(self, grace_seconds: float) -> None:
        """Stop listening, close idle connections, and others with their response.

        What is open after the grace period is aborted.
        """
        self.begin_drain()
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self.connections):
            connection.close_if_idle()
        if self.connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), grace_seconds)
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = [c.task for c in self.connections if c.task is not None]
        for connection in (*self.connections, *self._turned_away):
            connection.abort()
        # Transports report their end in the next round of the loop, which cancels the handlers.
        await asyncio.sleep(0)
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    def add(self, connection: ServerConnection) -> None:
        """Count a connection. Called by it."""
        self.connections.add(connection)
        self._all_closed.clear()

    def turn_away(self, connection: ServerConnection) -> None:
        """Keep a connection over the limit for the linger time. Called by it.

        A few, since each takes an open file: the earliest ends for the latest.
        """
        if len(self._turned_away) >= _MAX_TURNED_AWAY:
            earliest = next(iter(self._turned_away))
            del self._turned_away[earliest]
            earliest.abort()
        self._turned_away[connection] = None

    def remove(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended. Called by it."""
        self.connections.discard(connection)
        self._turned_away.pop(connection, None)
        if not self.connections:
            self._all_closed.set()

    def _accept(self) -> ServerConnection:
        is_full = len(self.connections) >= self._max_connections
        return ServerConnection(self, is_full=is_full, limit=self._max_connections)

    def _schedule(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self.check_timeouts)

    def check_timeouts(self) -> None:
        """Apply the timeouts to all connections; called every second."""
        self._schedule()
        now = self.clock()
        for connection in (*self.connections, *self._turned_away):
            connection.check(now)
