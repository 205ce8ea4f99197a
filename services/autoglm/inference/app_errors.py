"""Renders the errors of the engine's app in the dialect of the path. Used by `http_port`.

vLLM sends some errors of the Messages API in OpenAI's shape, and frameworks have their own for
unknown paths.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from autoglm.common.errors import Unimplemented
from autoglm.common.http_errors import SHOULD_RETRY, translated
from autoglm.common.validation.http_apis import dialect_of
from autoglm.inference.engine import Message

Send = Callable[[Message], Awaitable[None]]
# A longer one is passed on as it is.
_MAX_BYTES = 64 * 1024


class AppErrors:
    """An ASGI `send` that passes everything but errors on untouched."""

    def __init__(self, send: Send, path: str, request_id: str) -> None:
        self._send = send
        self._path = path
        self._request_id = request_id
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            await self._take(self._start, message)

    async def _take(self, start: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if more and len(self._body) <= _MAX_BYTES:
            return
        self._start, body = None, bytes(self._body)
        if not more:
            dialect = dialect_of(self._path)
            body = translated(body, start["status"], self._request_id, dialect)
            start = {**start, "headers": _headers(start, len(body))}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _headers(start: Message, length: int) -> list[tuple[bytes, bytes]]:
    ours = [(b"content-length", str(length).encode()), (b"content-type", b"application/json")]
    if start["status"] == Unimplemented.http_status:
        ours.append((SHOULD_RETRY.encode(), b"false"))
    names = {name for name, _ in ours}
    kept = [(k, v) for k, v in start.get("headers", ()) if k.lower() not in names]
    return [*kept, *ours]
