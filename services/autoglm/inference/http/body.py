"""Reads the body of an ASGI request and passes it on, for middleware that depends on it."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable

from autoglm.inference.engine import Message

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


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
    body = Body()
    while True:
        message = await receive()
        body.add(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return body.value()


def again(body: bytes, receive: Receive, *, is_whole: bool = True) -> Receive:
    """The body that was read, then what is still to come."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": not is_whole}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
