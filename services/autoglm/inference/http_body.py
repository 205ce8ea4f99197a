"""Reads the body of an ASGI request and gives it back, for middleware that must look into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from autoglm.inference.engine import Message

Receive = Callable[[], Awaitable[Message]]


async def whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return b"".join(parts)


def again(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then what is still to come."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
