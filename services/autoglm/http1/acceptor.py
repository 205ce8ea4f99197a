"""Accepts connections that begin with something else than HTTP: a PROXY header, TLS, or both.

The header of a trusted proxy is read before TLS, so this listens in place of the event loop's own
server. What does not become a connection of the server in time is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from autoglm.http1.proxy_protocol import MAX_BYTES, InvalidHeader, read_header
from autoglm.http1.rules import Limits, RejectReason

Make = Callable[[str], asyncio.Protocol]
"""Makes the connection of a client with this address; empty for the socket's own."""

# Between two reads of a header that has arrived in part; proxies send it at once.
_POLL_SECONDS = 0.01
# After a failure to accept, such as too many open files.
_PAUSE_SECONDS = 0.1
_HEADER: RejectReason = "proxy_header"
_HANDSHAKE: RejectReason = "tls_handshake"
_log = logging.getLogger("autoglm.http1")


def listening(family: int, address: tuple[str, int], backlog: int) -> socket.socket:
    """Return a socket that listens; on `::` it takes IPv4 connections as well. Raises OSError."""
    is_every = address[0] == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(
        address, family=family, backlog=backlog, dualstack_ipv6=is_every
    )
    listener.setblocking(False)
    return listener


class Acceptor:
    """A listener. At most as many connections as there may be open wait for a handshake."""

    def __init__(
        self,
        make: Make,
        limits: Limits,
        seconds: float,
        tls: ssl.SSLContext | None,
        rejected: Callable[[RejectReason], None],
    ) -> None:
        self._make, self._limits, self._seconds, self._tls = make, limits, seconds, tls
        self._rejected = rejected
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning: Counter[str] = Counter()

    async def start(self, host: str, port: int, backlog: int) -> tuple[str, int]:
        """Listen, and return the first address. Raises OSError."""
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, at in dict.fromkeys((each[0], str(each[4][0])) for each in found):
                self._listeners.append(listening(family, (at, port), backlog))
        except OSError:
            for listener in self._listeners:
                listener.close()
            raise
        for listener in self._listeners:
            self._keep(self._accept(listener))
        bound = self._listeners[0].getsockname()
        return str(bound[0]), int(bound[1])

    def close(self) -> None:
        """Stop listening, and close what has not begun."""
        for task in self._tasks:
            task.cancel()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    client, address = await loop.sock_accept(listener)
                except OSError as error:
                    _log.warning("cannot accept a connection: %s", error)
                    await asyncio.sleep(_PAUSE_SECONDS)
                else:
                    self._take(client, str(address[0]))

    def _take(self, client: socket.socket, peer: str) -> None:
        limits, network = self._limits, self._limits.network_of(peer)
        is_proxy = limits.is_proxy is not None and limits.is_proxy(peer)
        if len(self._tasks) > limits.connections:
            self._rejected("limit")
            client.close()
        elif not is_proxy and self._beginning[network] >= limits.per_address:
            self._rejected("limit_per_address")
            client.close()
        else:
            self._beginning[network] += 1
            self._keep(self._begin(client, network, is_proxy=is_proxy))

    async def _begin(self, client: socket.socket, network: str, *, is_proxy: bool) -> None:
        """Read the PROXY header, shake hands, and make the connection."""
        loop, reason, taken = asyncio.get_running_loop(), _HEADER, False
        try:
            async with asyncio.timeout(self._seconds):
                client.setblocking(False)
                peer = await _read_source(client) if is_proxy else ""
                reason = _HANDSHAKE
                await loop.connect_accepted_socket(
                    lambda: self._make(peer),
                    client,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._seconds if self._tls else None,
                )
                taken = True
        except (InvalidHeader, OSError, TimeoutError) as error:
            _log.debug("a connection did not begin: %s", error)
            self._rejected(reason)
        finally:
            if not taken:
                client.close()
            self._beginning[network] -= 1
            if not self._beginning[network]:
                del self._beginning[network]


async def _read_source(client: socket.socket) -> str:
    """Read the PROXY header, if there is one, and return its client's address.

    Raises InvalidHeader or OSError.
    """
    while True:
        await _readable(client)
        # Not consumed, since what follows belongs to TLS or HTTP.
        data = client.recv(MAX_BYTES, socket.MSG_PEEK)
        if not data:
            raise ConnectionResetError("the proxy disconnected")
        header = read_header(data)
        if header is not None:
            client.recv(header.size)
            return header.source
        await asyncio.sleep(_POLL_SECONDS)


async def _readable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def note() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(client.fileno(), note)
    try:
        await ready
    finally:
        loop.remove_reader(client.fileno())
