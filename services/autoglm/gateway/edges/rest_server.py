"""The REST edge on a port: connections, their number, their end. Made by `app`.

Decides nothing about requests: `rest_edge` answers them.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from autoglm.common import errors
from autoglm.gateway.edges.rest import RestEdge
from autoglm.validation.http_errors import to_http

_KEEPALIVE_SECONDS = 75.0


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a line of the HTTP server's is about us: what clients send wrong they hear of."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_protocol_log = logging.getLogger("autoglm.gateway.http")
_protocol_log.addFilter(_is_ours)


class RestServer:
    """The edge on a port. `stop` ends idle connections at once and gives requests the grace."""

    def __init__(self, edge: RestEdge, grace_seconds: float, max_connections: int = 10_000) -> None:
        self._edge = edge
        self._max_connections = max_connections
        self._listener: asyncio.Server | None = None
        self._runner = web.AppRunner(
            edge.app(),
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            logger=_protocol_log,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            shutdown_timeout=grace_seconds,
        )

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """The bound port. Raises OSError."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._accept, host, port, ssl=tls, backlog=1024)
        return int(self._listener.sockets[0].getsockname()[1])

    async def start_unix(self, path: str) -> None:
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._accept, path, backlog=1024)

    def begin_drain(self) -> None:
        """From now on each answer ends its connection, so that clients come back elsewhere."""
        self._edge.draining = True

    async def stop(self) -> None:
        self.begin_drain()
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "a runner that was set up has a server"
        if len(server.connections) >= self._max_connections:
            return _Full(self._max_connections)
        return server()


class _Full(asyncio.Protocol):
    """Answers a connection too many before it has asked."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        error = errors.QueueFull(
            f"the gateway has {self._limit} connections, its limit; try again later",
            retry_after=1.0,
        )
        answer = to_http(error, "", "")
        head = {**answer.headers, "connection": "close", "content-length": len(answer.body)}
        lines = [
            f"HTTP/1.1 {answer.status} Too Many Requests",
            *(f"{k}: {v}" for k, v in head.items()),
        ]
        writer = cast(asyncio.Transport, transport)
        writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
        writer.close()
