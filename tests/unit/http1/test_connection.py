"""One client connection: what a server sends becomes a response, or an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from autoglm.http1.body import HIGH_WATER_BYTES
from autoglm.http1.connection import (
    Connection,
    ConnectionLost,
    InvalidResponse,
    Response,
)

HEAD = b"POST / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Wire(asyncio.Transport):
    """What a connection writes, and whether it reads; delivers what a server sends."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.is_closed = False
        self.idle: list[Connection] = []
        self.lost: list[Connection] = []
        self.connection = Connection(self.idle.append, self.lost.append)
        self.connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def abort(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def receive(self, *parts: bytes) -> None:
        for part in parts:
            self.connection.data_received(part)

    def end(self) -> None:
        self.connection.eof_received()
        self.is_closed = True
        self.connection.connection_lost(None)


@asynccontextmanager
async def responding(*parts: bytes, is_head: bool = False) -> AsyncIterator[tuple[Wire, Response]]:
    wire = Wire()
    sending = asyncio.create_task(wire.connection.send(HEAD, b"", is_head=is_head))
    await asyncio.sleep(0)
    wire.receive(*parts)
    yield wire, await sending


async def read_all(response: Response) -> bytes:
    body = b""
    while piece := await response.read():
        body += piece
    return body


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_response_is_the_same_however_it_is_cut(size: int) -> None:
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nX: 1\r\nx:  2 \t\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;e=f\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    )
    parts = [raw[at : at + size] for at in range(0, len(raw), size)]
    async with responding(*parts) as (wire, response):
        assert response.status == 201
        assert response.fields == [(b"x", b"1"), (b"x", b"2"), (b"transfer-encoding", b"chunked")]
        assert await read_all(response) == b"abcde"
        response.close()

        assert wire.idle == [wire.connection] and not wire.is_closed


async def test_a_connection_serves_one_request_after_another() -> None:
    async with responding(OK) as (wire, response):
        assert await read_all(response) == b"ok"
        response.close()
        sending = asyncio.create_task(wire.connection.send(HEAD, b"x"))
        await asyncio.sleep(0)
        wire.receive(OK)

        assert await read_all(await sending) == b"ok"
        assert wire.connection.requests == 2
        assert wire.written == HEAD + HEAD + b"x"


@pytest.mark.parametrize(
    "raw",
    [
        OK.replace(b"\r\n", b"\r\nconnection: close\r\n", 1),
        OK.replace(b"1.1", b"1.0"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
    ],
)
async def test_a_connection_that_cannot_be_kept_is_closed(raw: bytes) -> None:
    async with responding(raw) as (wire, response):
        assert await read_all(response) == b"ok"
        response.close()

        assert wire.idle == [] and wire.is_closed


async def test_a_response_that_is_not_read_to_its_end_closes_the_connection() -> None:
    async with responding(OK[:-1]) as (wire, response):
        assert await response.read() == b"o"
        response.close()

        assert wire.is_closed


async def test_bytes_that_no_request_expects_close_the_connection() -> None:
    async with responding(OK) as (wire, response):
        response.close()
        wire.receive(OK)

        assert wire.is_closed


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + 70_000 * b"y",
        b"HTTP/1.1 200 OK\r\n" + 7_000 * b"x: yyyyyyyyyy\r\n" + b"\r\n",
    ],
)
async def test_what_is_not_http_fails_the_request_and_the_connection(raw: bytes) -> None:
    wire = Wire()
    sending = asyncio.create_task(wire.connection.send(HEAD, b""))
    await asyncio.sleep(0)
    wire.receive(raw)

    with pytest.raises(InvalidResponse):
        await sending
    assert wire.is_closed


async def test_an_invalid_chunk_fails_the_read_behind_what_arrived() -> None:
    start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    async with responding(start) as (wire, response):
        assert await response.read() == b"a"
        wire.receive(b"zz\r\n")

        with pytest.raises(InvalidResponse):
            await response.read()
        assert wire.is_closed


async def test_a_body_that_ends_early_is_an_error() -> None:
    async with responding(OK[:-1]) as (wire, response):
        wire.end()

        assert await response.read() == b"o"
        with pytest.raises(ConnectionLost):
            await response.read()


async def test_a_body_without_framing_ends_with_the_connection() -> None:
    async with responding(b"HTTP/1.0 200 OK\r\n\r\nab") as (wire, response):
        assert not response.is_framed
        wire.end()

        assert await read_all(response) == b"ab"


@pytest.mark.parametrize("raw", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 -\r\n\r\n"])
async def test_a_status_without_a_body_is_complete_at_once(raw: bytes) -> None:
    async with responding(raw) as (wire, response):
        assert await read_all(response) == b""
        response.close()

        assert wire.idle == [wire.connection]


async def test_a_response_to_head_has_no_body() -> None:
    async with responding(OK[:-2], is_head=True) as (_, response):
        assert response.fields == [(b"content-length", b"2")]
        assert await read_all(response) == b""


async def test_a_response_that_is_not_read_stops_the_connection_from_reading() -> None:
    size = HIGH_WATER_BYTES + 1
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    async with responding(head, size * b"x") as (wire, response):
        assert wire.reads is False
        assert len(await response.read()) == size
        assert bool(wire.reads)
        assert await response.read() == b""


async def test_a_connection_that_is_kept_unread_reads_again() -> None:
    size = HIGH_WATER_BYTES + 1
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    async with responding(head, size * b"x") as (wire, response):
        response.close()

        assert wire.reads and wire.idle == [wire.connection]


async def test_cancelling_a_request_closes_its_connection() -> None:
    wire = Wire()
    sending = asyncio.create_task(wire.connection.send(HEAD, b""))
    await asyncio.sleep(0)
    sending.cancel()

    with pytest.raises(asyncio.CancelledError):
        await sending
    assert wire.is_closed


async def test_an_early_response_stops_a_long_body() -> None:
    wire = Wire()
    sending = asyncio.create_task(wire.connection.send(HEAD, bytes(10_000_000)))
    await asyncio.sleep(0)
    wire.receive(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
    response = await sending

    assert response.status == 413
    assert len(wire.written) < 1_000_000
    response.close()
    assert wire.is_closed


async def test_a_long_body_waits_for_a_server_that_does_not_read() -> None:
    wire = Wire()
    wire.connection.pause_writing()
    sending = asyncio.create_task(wire.connection.send(HEAD, bytes(10_000_000)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(wire.written) < 200_000

    wire.connection.resume_writing()
    wire.receive(OK)
    assert (await sending).status == 200


async def test_an_error_from_outside_ends_a_read() -> None:
    async with responding(OK[:-2]) as (_, response):
        response.fail(TimeoutError())

        with pytest.raises(TimeoutError):
            await response.read()
