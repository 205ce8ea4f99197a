"""What a pod's HTTP/1.1 responses are on the wire, write by write."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from autoglm.inference.engine import Message
from autoglm.inference.http.server import HttpProtocol

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
SHORT: Message = {**START, "headers": [(b"content-length", b"5")]}


class Wire(asyncio.Transport):
    """Keeps every write to a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed_after = -1

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed_after >= 0

    def close(self) -> None:
        self.closed_after = len(self.writes)

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


async def on_the_wire(request: bytes, messages: Sequence[Message], reads: bool = False) -> Wire:
    """What an app's messages are on the wire; it observes every pause between them."""
    wire, ended = Wire(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if reads:
            asyncio.get_running_loop().call_soon(lambda: protocol.data_received(b"hello"))
            await receive()
        for message in messages:
            await send(message)
            await asyncio.sleep(0)
        ended.set()

    config = uvicorn.Config(app, http=HttpProtocol, lifespan="off", log_config=None)
    config.load()
    protocol = HttpProtocol(config, ServerState(), {})
    protocol.connection_made(wire)
    protocol.data_received(request)
    async with asyncio.timeout(5):
        await ended.wait()
    return wire


def get(method: bytes = b"GET", extra: bytes = b"") -> bytes:
    return method + b" / HTTP/1.1\r\nhost: x\r\n" + extra + b"\r\n"


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_short_response_is_one_write() -> None:
    (whole,) = (await on_the_wire(get(), [SHORT, body(b"HTTP/")])).writes
    assert whole.startswith(b"HTTP/1.1 200") and whole.endswith(b"\r\n\r\nHTTP/")


async def test_head_of_a_stream_goes_with_its_first_event_and_the_rest_at_once() -> None:
    wire = await on_the_wire(get(), [START, body(b"one", more=True), body(b"two", more=True)])
    first, second = wire.writes
    assert first.startswith(b"HTTP/1.1 200") and first.endswith(b"3\r\none\r\n")
    assert second == b"3\r\ntwo\r\n"


@pytest.mark.parametrize("extra", [b"", b"connection: close\r\n"])
async def test_response_without_a_body_is_sent(extra: bytes) -> None:
    wire = await on_the_wire(get(b"HEAD", extra), [SHORT, body(b"")])
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 200")
    assert wire.closed_after == (len(wire.writes) if extra else -1)


async def test_client_that_expects_100_continue_gets_it() -> None:
    request = get(b"POST", b"content-length: 5\r\nexpect: 100-continue\r\n")
    wire = await on_the_wire(request, [SHORT, body(b"hello")], reads=True)
    assert wire.writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert len(wire.writes) == 2


async def test_body_that_looks_like_a_head_is_sent() -> None:
    start = {**START, "headers": [(b"content-length", b"12")]}
    wire = await on_the_wire(get(), [start, body(b"HTTP/1.1 200")])
    assert b"".join(wire.writes).endswith(b"\r\n\r\nHTTP/1.1 200")
