"""The pool over real sockets: reuse, idle connections, TLS, servers that are gone."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trustme
import uvloop

from autoglm.http1.connection import ConnectionLost, Response
from autoglm.http1.heads import origin_of, request_head
from autoglm.http1.pool import ConnectFailed, Pool, ReusedConnectionLost

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Server:
    """Writes `responses` in turn, the last one again and again; None ends the connection."""

    responses: list[bytes | None] = field(default_factory=lambda: [OK])
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                self.requests.append(head + body)
                response = self.responses[0]
                if len(self.responses) > 1:
                    self.responses.pop(0)
                if response is None:
                    return
                writer.write(response)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    *responses: bytes | None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(list(responses or (OK,)))
    listener = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    async with listener:
        yield server


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def pool(
    tls: ssl.SSLContext | None = None, clock: Clock | None = None
) -> AsyncIterator[Pool]:
    made = Pool(tls, connect_seconds=2.0, keepalive_seconds=4.0, clock=clock or Clock(1.0))
    try:
        yield made
    finally:
        await made.close()


async def post(made: Pool, url: str, body: bytes = b"") -> bytes:
    response = await begin(made, url, body)
    whole = b""
    try:
        while piece := await response.read():
            whole += piece
    finally:
        response.close()
    return whole


async def begin(made: Pool, url: str, body: bytes = b"") -> Response:
    origin = origin_of(url)
    return await made.send(origin, request_head("POST", "/", origin.authority, [], len(body)), body)


async def test_requests_in_turn_share_a_connection() -> None:
    async with serving() as server, pool() as made:
        for number in range(3):
            assert await post(made, server.url, b"%d" % number) == b"ok"

        assert server.connections == 1
        assert [request[-1:] for request in server.requests] == [b"0", b"1", b"2"]


async def test_requests_at_once_have_a_connection_each() -> None:
    async with serving() as server, pool() as made:
        responses = await asyncio.gather(*(begin(made, server.url) for _ in range(5)))

        assert server.connections == 5
        for response in responses:
            response.close()


async def test_a_connection_that_was_idle_too_long_is_not_used() -> None:
    clock = Clock(1.0)
    async with serving() as server, pool(clock=clock) as made:
        await post(made, server.url)
        clock.now += 4.0
        await post(made, server.url)

        assert server.connections == 2


async def test_a_long_body_arrives_whole() -> None:
    body = bytes(range(256)) * 40_000
    async with serving() as server, pool() as made:
        assert await post(made, server.url, body) == b"ok"

        assert server.requests[0].endswith(body)


async def test_a_reused_connection_that_ends_differs_from_a_new_one() -> None:
    async with serving(OK, None) as server, pool() as made:
        await post(made, server.url)
        with pytest.raises(ReusedConnectionLost):
            await post(made, server.url)
        with pytest.raises(ConnectionLost) as failure:
            await post(made, server.url)

        assert type(failure.value) is ConnectionLost


async def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with pool() as made:
            with pytest.raises(ConnectFailed, match=url.removeprefix("http://")) as failure:
                await post(made, url)

    assert failure.value.errno is not None


async def test_a_name_without_an_address_is_named() -> None:
    async with pool() as made:
        with pytest.raises(ConnectFailed, match="no-such-host.invalid:80"):
            await post(made, "http://no-such-host.invalid")


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_tls_verifies_the_server(is_trusted: bool) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    if is_trusted:
        authority.configure_trust(client_tls)
    async with serving(tls=server_tls) as server, pool(client_tls) as made:
        if is_trusted:
            assert await post(made, server.url) == b"ok"
            assert await post(made, server.url) == b"ok"
            assert server.connections == 1
        else:
            with pytest.raises(ConnectFailed, match="certificate verify failed"):
                await post(made, server.url)


async def test_closing_the_pool_ends_open_requests() -> None:
    async with serving(OK[:-1]) as server, pool() as made:
        response = await begin(made, server.url)
        assert await response.read() == b"o"
        await made.close()

        with pytest.raises(ConnectionLost):
            await response.read()


@pytest.mark.parametrize(
    "test",
    [
        test_requests_in_turn_share_a_connection,
        test_a_long_body_arrives_whole,
        test_a_reused_connection_that_ends_differs_from_a_new_one,
        test_closing_the_pool_ends_open_requests,
    ],
)
def test_all_of_it_holds_on_uvloop(test: Callable[[], Coroutine[None, None, None]]) -> None:
    """Services run on uvloop, whose transports are not asyncio's."""
    uvloop.run(test())
