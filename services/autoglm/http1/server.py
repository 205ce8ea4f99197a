"""A server of HTTP/1.1 (RFC 9112) and 1.0 on llhttp in strict mode.

Bounds what a client may cost before its request is accepted: connections, bytes of the head, of
chunk framing and of pipelined requests, and the time of the head, the body and an idle connection.
Knows no paths, errors of APIs or credentials: the handler does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

from autoglm.http1.acceptor import Acceptor, listening
from autoglm.http1.connections import Connections, Limit
from autoglm.http1.rules import (
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUTS,
    Events,
    Handler,
    Limits,
    NoEvents,
    Reject,
    Timeouts,
)
from autoglm.http1.server_connection import ServerConnection

_SWEEP_SECONDS = 1.0
_BACKLOG = 1024
# Connecting to a full Unix socket fails at once, where TCP retries. The kernel has its own bound.
_UNIX_BACKLOG = 65_535
# Connections over a limit, and those closed for others, that are kept for a moment, so that their
# clients read why.
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
        limits: Limits = DEFAULT_LIMITS,
        events: Events | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.handler = handler
        self.reject = reject
        self.timeouts = timeouts
        self.is_draining = False
        self.clock = clock
        self.connections = Connections[ServerConnection](limits.connections, limits.per_address)
        self._limits = limits
        self._events: Events = events or NoEvents()
        self._turned_away: dict[ServerConnection, None] = {}
        self._all_closed = asyncio.Event()
        self._listener: asyncio.Server | Acceptor | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen, and return the port; on `::` for IPv4 as well. Raises OSError."""
        loop = asyncio.get_running_loop()
        if tls is None and self._limits.is_proxy is None:
            if host == "::":
                # The event loop's own would take no IPv4 connections.
                every = listening(socket.AF_INET6, (host, port), _BACKLOG)
                self._listener = await loop.create_server(self._made, sock=every, backlog=_BACKLOG)
            else:
                self._listener = await loop.create_server(self._made, host, port, backlog=_BACKLOG)
            bound = self._listener.sockets[0].getsockname()
        else:
            self._listener = acceptor = Acceptor(
                self._made, self._limits, self.timeouts.head, tls, self._events.rejected
            )
            bound = await acceptor.start(host, port, _BACKLOG)
        self._schedule()
        return int(bound[1])

    async def start_unix(self, path: str) -> None:
        """Listen on a Unix socket. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._made, path, backlog=_UNIX_BACKLOG)
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
            connection.reason = connection.reason or "drain"
            connection.abort()
        # Transports report their end in the next round of the loop, which cancels the handlers.
        await asyncio.sleep(0)
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    def admit(self, connection: ServerConnection) -> str:
        """Count a connection, and return why it is rejected; empty where it is accepted.

        Called by it. Over a limit it takes the place of one that is idle, if there is one.
        """
        peer, is_proxy = connection.peer, self._limits.is_proxy
        is_client = peer and not (is_proxy is not None and is_proxy(peer))
        address = self._limits.network_of(peer) if is_client else ""
        limit, idle = self.connections.make_room(address)
        if limit is not None and idle is None:
            self._events.rejected(limit)
            self._turn_away(connection)
            return self._over(limit)
        if limit is not None and idle is not None:
            self._forget(idle, limit)
            self._turn_away(idle)
        self.connections.add(connection, address)
        self._all_closed.clear()
        self._events.accepted()
        return ""

    def set_idle(self, connection: ServerConnection) -> None:
        """Note that a connection waits for its next request. Called by it."""
        self.connections.set_idle(connection)

    def set_busy(self, connection: ServerConnection) -> None:
        """Note that a request has begun. Called by its connection."""
        self.connections.set_busy(connection)

    def remove(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended. Called by it."""
        self._forget(connection)
        self._turned_away.pop(connection, None)

    def _forget(self, connection: ServerConnection, limit: Limit | None = None) -> None:
        if self.connections.remove(connection):
            if limit is not None:
                connection.end_idle(limit)
            self._events.closed(connection.reason or "client")
        if not len(self.connections):
            self._all_closed.set()

    def _turn_away(self, connection: ServerConnection) -> None:
        """Keep a connection that is not counted for the linger time.

        A few, since each takes an open file: the earliest ends for the latest.
        """
        if len(self._turned_away) >= _MAX_TURNED_AWAY:
            earliest = next(iter(self._turned_away))
            del self._turned_away[earliest]
            earliest.abort()
        self._turned_away[connection] = None

    def _over(self, limit: Limit) -> str:
        limits = self._limits
        if limit == "limit":
            return (
                f"the server has {limits.connections} connections with open requests, its limit "
                "(--max-connections); try again later"
            )
        return (
            f"your address has {limits.per_address} connections with open requests, the limit of "
            "one address (--max-connections-per-address); use fewer, or several addresses"
        )

    def _made(self, peer: str = "") -> ServerConnection:
        return ServerConnection(self, peer)

    def _schedule(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self.check_timeouts)

    def check_timeouts(self) -> None:
        """Apply the timeouts to all connections; called every second."""
        self._schedule()
        now = self.clock()
        for connection in (*self.connections, *self._turned_away):
            connection.check(now)
