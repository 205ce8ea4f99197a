"""Reads the body of an ASGI request and passes it on, for middleware that depends on it."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable

from autoglm.inference.engine import Message

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def whole(receive: Receive) -> bytes:
    # Grows in place, and gives its bytes without a copy: joining a list would stop the loop.
    body, first = io.BytesIO(), b""
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        first = b"" if body.tell() else chunk
        body.write(chunk)
        if message["type"] != "http.request" or not message.get("more_body", False):
            return first or body.getvalue()


def again(body: bytes, receive: Receive, *, is_whole: bool = True) -> Receive:
    """The body that was read, then what is still to come."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": not is_whole}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
