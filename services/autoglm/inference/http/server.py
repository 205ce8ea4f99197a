"""Serves an ASGI app on a bound socket by uvicorn.

The HTTP/1.1 protocol writes a response's head together with its first body part. A pod that dies
has then sent either nothing of a short response or all of it, so that a proxy can retry on another
endpoint.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from autoglm.common.addresses import split_address
from autoglm.inference.engine import AsgiApp

_BACKLOG = 2048
_HEAD = b"HTTP/1.1 "
# An interim response (RFC 9110 section 15.2): the client waits for it.
_INTERIM = b"HTTP/1.1 1"


class HttpProtocol(HttpToolsProtocol):
    """Made by uvicorn, one for each connection."""

    def connection_made(self, transport: Any) -> None:
        self._held = _HeadHeld(transport)
        super().connection_made(self._held)  # type: ignore[arg-type]  # has all that is called

    def on_response_complete(self) -> None:
        # A response to HEAD, for example, has no body.
        self._held.flush()
        super().on_response_complete()


class _HeadHeld:
    """A transport that keeps a head back until the next write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if data.startswith(_HEAD) and not data.startswith(_INTERIM):
            self.flush()
            self._head = data
        else:
            head, self._head = self._head, b""
            self._transport.writelines((head, data) if head else (data,))

    def flush(self) -> None:
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def bind(address: str) -> socket.socket:
    """Return a socket that owns the address but does not listen yet. Raises OSError."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            # It takes IPv4 connections as well.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the pod."""
        yield


class HttpServer:
    """Serves an app on a bound socket until `stop`."""

    def __init__(self, app: AsgiApp, context: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            app, http=HttpProtocol, loop="none", ws="none", log_config=None, access_log=False,
            backlog=_BACKLOG, server_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        config.load()
        config.ssl = context
        self._config = config
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, bound: socket.socket) -> None:
        self._task = asyncio.create_task(self._server.serve([bound]), name="http")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server ended before it had started")
            await asyncio.sleep(0.01)

    async def stop(self, grace_seconds: float) -> None:
        """Accept no new connections; open responses may finish within the grace, in seconds."""
        self._config.timeout_graceful_shutdown = max(1, round(grace_seconds))
        self._server.should_exit = True
        if self._task is not None:
            await self._task
