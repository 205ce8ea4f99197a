"""The REST edge on a port: accepts, limits and closes connections. Built by `app`."""

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
    """Return whether a log record is about the gateway, not about a client's invalid HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_protocol_log = logging.getLogger("autoglm.gateway.http")
_protocol_log.addFilter(_is_ours)


class RestServer:
    """The edge on a port. `stop` closes idle connections at once, others after the grace period."""

    def __init__(self, edge: RestEdge, grace_seconds: float, max_connections: int) -> None:
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
        """Listen and return the port. Raises OSError."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._accept, host, port, ssl=tls, backlog=1024)
        return int(self._listener.sockets[0].getsockname()[1])

    async def start_unix(self, path: str) -> None:
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._accept, path, backlog=1024)

    def begin_drain(self) -> None:
        """Close each connection with its next response, so that clients reconnect elsewhere."""
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
    """Rejects a connection over the limit before its first request."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        error = errors.QueueFull(
            f"the gateway has {self._limit} connections, its limit; try again later",
            retry_after=1.0,
        )
        error_response = to_http(error, "", "")
        head = {
            **error_response.headers,
            "connection": "close",
            "content-length": len(error_response.body),
        }
        lines = [
            f"HTTP/1.1 {error_response.status} Too Many Requests",
            *(f"{k}: {v}" for k, v in head.items()),
        ]
        writer = cast(asyncio.Transport, transport)
        writer.write("\r\n".join([*lines, "", ""]).encode() + error_response.body)
        writer.close()
