"""Shared by the pod's ASGI middleware: bodies of requests, and responses of its own."""

from __future__ import annotations

import io

from autoglm.common.errors import AutoGLMError
from autoglm.inference.engine import Message, Receive, Send
from autoglm.validation.http_errors import to_http


class Body:
    """A body as it arrives. Never copied as a whole, which would stop the event loop."""

    def __init__(self) -> None:
        self.size = 0
        self._first = b""
        # Grows in place, and gives its bytes without a copy.
        self._joined = io.BytesIO()

    def add(self, chunk: bytes) -> None:
        if not self.size:
            self._first = chunk
        elif chunk:
            if not self._joined.tell():
                self._joined.write(self._first)
            self._joined.write(chunk)
        self.size += len(chunk)

    def value(self) -> bytes:
        return self._joined.getvalue() if self._joined.tell() else self._first


async def whole(receive: Receive) -> bytes:
    """Return the whole body, or what came of it before the client disconnected."""
    body = Body()
    while True:
        message = await receive()
        body.add(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return body.value()


def again(body: bytes, receive: Receive, *, is_whole: bool = True) -> Receive:
    """Return a `receive` of the body that was read, then of what is still to come."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": not is_whole}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


async def respond(send: Send, code: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole response; its content-length is added to the headers."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": code, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def reject(send: Send, error: AutoGLMError, request_id: str, path: str) -> None:
    """Send an error in the dialect of the path."""
    rejection = to_http(error, request_id, path)
    headers = [(k.encode(), v.encode("latin-1")) for k, v in rejection.headers.items()]
    await respond(send, rejection.status, headers, rejection.body)
