"""Connections that begin with a PROXY header, TLS or both, over real sockets."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
import trustme

from autoglm.common.addresses import TrustedProxies, network_of
from autoglm.http1.exchange import Exchange
from autoglm.http1.rules import DEFAULT_TIMEOUTS, Limits
from autoglm.http1.server import Server

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSE = b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 80\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x11, 12) + bytes(range(1, 13))
PROXY, CLIENT = "127.0.0.3", "127.0.0.2"
AUTHORITY = trustme.CA()


async def peer(exchange: Exchange) -> None:
    """Respond with the client's address."""
    exchange.respond(200, [], exchange.peer.encode())


def reject(exchange: Exchange, status: int, why: str) -> None:
    exchange.respond(status, [], why.encode())


@dataclass
class Noted:
    reasons: list[str] = field(default_factory=list)

    def accepted(self) -> None: ...

    def closed(self, reason: str) -> None: ...

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)


@asynccontextmanager
async def serving(
    noted: Noted, *, tls: bool = False, per_address: int = 2, seconds: float = 5.0
) -> AsyncIterator[int]:
    limits = Limits(8, per_address, network_of, TrustedProxies([f"{PROXY}/32"]).trusts)
    timeouts = replace(DEFAULT_TIMEOUTS, head=seconds)
    server = Server(peer, reject, timeouts=timeouts, limits=limits, events=noted)
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("localhost").configure_cert(context)
    port = await server.start("127.0.0.1", 0, context)
    try:
        yield port
    finally:
        await server.stop(0)


async def body(
    port: int, source: str, first: bytes, *, tls: bool = False, then: bytes = CLOSE
) -> bytes:
    """Return what the server responds to, without the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(first)
        if tls:
            client = ssl.create_default_context()
            AUTHORITY.configure_trust(client)
            await writer.start_tls(client, server_hostname="localhost")
        writer.write(then)
        async with asyncio.timeout(10):
            return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("source", "header", "address"),
    [
        (PROXY, V1, b"192.0.2.1"),
        (PROXY, V2, b"1.2.3.4"),
        (PROXY, b"PROXY UNKNOWN\r\n", PROXY.encode()),
        (PROXY, b"", PROXY.encode()),
        (CLIENT, b"", CLIENT.encode()),
    ],
)
async def test_a_trusted_proxy_names_its_client(
    tls: bool, source: str, header: bytes, address: bytes
) -> None:
    async with serving(Noted(), tls=tls) as port:
        assert await body(port, source, header, tls=tls) == address


async def test_a_header_may_arrive_byte_by_byte() -> None:
    async with serving(Noted()) as port:
        _, writer = connection = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(PROXY, 0)
        )
        for number in range(len(V1)):
            writer.write(V1[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(CLOSE)
        assert (await connection[0].read()).endswith(b"192.0.2.1")
        writer.close()


async def test_a_header_from_another_peer_is_no_http() -> None:
    async with serving(Noted()) as port:
        assert b"not valid HTTP" in await body(port, CLIENT, V1)
        assert b"not valid HTTP" in await body(port, CLIENT, V2)


@pytest.mark.parametrize(
    ("first", "then"),
    [(b"PROXY nonsense\r\n", CLOSE), (b"PROXY TCP4 ", b""), (b"", b"")],
    ids=["invalid", "never whole", "nothing"],
)
async def test_a_proxy_whose_header_is_invalid_or_late_is_closed(first: bytes, then: bytes) -> None:
    noted = Noted()
    async with serving(noted, seconds=0.3) as port:
        with suppress(ConnectionResetError):
            assert await body(port, PROXY, first, then=then) == b""
    assert noted.reasons == ["proxy_header"]


async def test_the_bound_is_of_the_client_that_the_proxy_names() -> None:
    noted = Noted()
    async with serving(noted) as port:
        busy = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(PROXY, 0))
            writer.write(V1 + GET[:-2])
            await writer.drain()
            busy.append((reader, writer))
        for reader, _ in busy[2:]:
            assert (await reader.readline()).startswith(b"HTTP/1.1 429")
        assert await body(port, PROXY, V2) == b"1.2.3.4"
        for _, writer in busy:
            writer.close()
    assert noted.reasons == ["limit_per_address"] * 2


async def test_handshakes_that_do_not_end_are_bounded_in_number_and_time() -> None:
    noted = Noted()
    async with serving(noted, tls=True, seconds=0.5) as port:
        waiting = [
            await asyncio.open_connection("127.0.0.1", port, local_addr=(CLIENT, 0))
            for _ in range(4)
        ]
        assert await body(port, "127.0.0.4", b"", tls=True) == b"127.0.0.4"
        for reader, writer in waiting:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
    assert noted.reasons == ["limit_per_address"] * 2 + ["tls_handshake"] * 2
