"""uvicorn's HTTP/1.1 protocol that writes a response's head together with its first body part.

A pod that dies has then sent either nothing of a short response or all of it, so that a proxy can
retry on another endpoint. Used by `port`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
