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


class Server:
    """Listens on one address. `on_reject` counts rejections by status."""

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
        """Close idle connections, and each other one with its next response."""
        self.is_draining = True
        for connection in tuple(self.connections):
            connection.close_if_idle()

    async def stop(self, grace_seconds: float) -> None:
        """Stop listening and drain; abort what is open after the grace period."""
        self.begin_drain()
        if self._listener is not None:
            self._listener.close()
        if self.connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), grace_seconds)
        for connection in tuple(self.connections):
            connection.abort()
        if self._sweep is not None:
            self._sweep.cancel()
        # Transports report their end in the next round of the loop.
        await asyncio.sleep(0)

    def add(self, connection: ServerConnection) -> None:
        """Count a connection. Called by it."""
        self.connections.add(connection)
        self._all_closed.clear()

    def remove(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended. Called by it."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_closed.set()

    def _accept(self) -> ServerConnection:
        is_full = len(self.connections) >= self._max_connections
        return ServerConnection(self, is_full=is_full, limit=self._max_connections)

    def _schedule(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self.check_timeouts)

    def check_timeouts(self) -> None:
        """Apply the timeouts to all connections; called every second."""
        now = self.clock()
        for connection in tuple(self.connections):
            connection.check(now)
        self._schedule()
