"""Connections to many servers, kept open between requests.

Sets no limit on their number, which admission does. Never retries: the caller knows what a request
may repeat.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address

from autoglm.http1.connection import Connection, ConnectionLost, Response
from autoglm.http1.heads import Origin

_Key = tuple[str, int, bool]
_DNS_SECONDS = 10.0


class ConnectFailed(Exception):
    """No connection to the server. `errno` is that of the last attempt, where there is one."""

    def __init__(self, why: str, errno: int | None = None) -> None:
        super().__init__(why)
        self.errno = errno


class ReusedConnectionLost(ConnectionLost):
    """A connection that had served before ended before the response began.

    The server may have closed it while it was idle, as the request was on its way.
    """


class Pool:
    """Keeps idle connections by origin, for at most `keepalive_seconds`. `clock` is monotonic."""

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        connect_seconds: float,
        keepalive_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tls = tls or ssl.create_default_context()
        self._connect_seconds = connect_seconds
        self._keepalive_seconds = keepalive_seconds
        self._clock = clock
        self._idle: dict[_Key, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._addresses: dict[tuple[str, int], tuple[float, Sequence[str]]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def send(
        self,
        origin: Origin,
        head: bytes,
        body: bytes,
        ends_at: float = math.inf,
        *,
        is_head: bool = False,
    ) -> Response:
        """Send a request and return its response, once its head has arrived.

        `ends_at` is a time of the event loop, at which the response fails. Raises ConnectFailed,
        ReusedConnectionLost, ConnectionLost, or TimeoutError at `ends_at`.
        """
        key = (origin.host, origin.port, origin.is_tls)
        connection = self._take(key) or await self._connect(key, ends_at)
        is_reused = connection.requests > 0
        try:
            return await connection.send(head, body, ends_at, is_head=is_head)
        except ConnectionLost as error:
            if is_reused and type(error) is ConnectionLost:
                raise ReusedConnectionLost(str(error)) from error
            raise

    async def close(self) -> None:
        """Close all connections, with the requests that are open on them."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.close()
        self._idle.clear()
        # Transports report their end in the next round of the loop.
        await asyncio.sleep(0)

    def _take(self, key: _Key) -> Connection | None:
        idle = self._idle.get(key)
        oldest = self._clock() - self._keepalive_seconds
        while idle:
            connection = idle.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self, key: _Key, ends_at: float) -> Connection:
        host, port, is_tls = key
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now + self._connect_seconds, ends_at)):
                return await self._connect_any(host, port, is_tls)
        except TimeoutError as error:
            if ends_at < now + self._connect_seconds:
                raise
            raise ConnectFailed(
                f"no connection to {host}:{port} within {self._connect_seconds:g} s"
            ) from error
        except (OSError, ssl.SSLError, UnicodeError) as error:
            raise ConnectFailed(
                f"cannot connect to {host}:{port}: {error}", getattr(error, "errno", None)
            ) from error

    async def _connect_any(self, host: str, port: int, is_tls: bool) -> Connection:
        loop = asyncio.get_running_loop()
        context = self._tls if is_tls else None
        error: OSError | None = None
        keep = partial(self._keep, (host, port, is_tls))
        for address in await self._resolve(host, port):
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(keep, self._open.discard),
                    address,
                    port,
                    ssl=context,
                    server_hostname=host if is_tls else None,
                )
            except OSError as failed:
                error = failed
                continue
            self._open.add(connection)
            return connection
        raise error or OSError(f"{host} has no address")

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a name, as resolved in the last seconds."""
        with suppress(ValueError):
            return (str(ip_address(host)),)
        now = self._clock()
        until, addresses = self._addresses.get((host, port), (0.0, ()))
        if until <= now:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
            addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
            self._addresses[host, port] = (now + _DNS_SECONDS, addresses)
        return addresses

    def _keep(self, key: _Key, connection: Connection) -> None:
        connection.idle_since = self._clock()
        self._idle.setdefault(key, []).append(connection)
        if self._sweep is None:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(self._keepalive_seconds, self._close_old)

    def _close_old(self) -> None:
        """Close what has been idle too long; the next sweep is due while any is idle."""
        self._sweep = None
        oldest = self._clock() - self._keepalive_seconds
        for key, connections in tuple(self._idle.items()):
            kept = [c for c in connections if c.is_open and c.idle_since > oldest]
            for connection in connections:
                if connection not in kept:
                    connection.close()
            self._idle[key] = kept
        self._idle = {key: kept for key, kept in self._idle.items() if kept}
        if self._idle:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(self._keepalive_seconds, self._close_old)
