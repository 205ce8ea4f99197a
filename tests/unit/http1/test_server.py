"""A server's connection: valid requests are handled in order, others are rejected and bounded."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.support.http1_wire import Clock, Seen, Wire, reject, settle

from autoglm.common.addresses import TrustedProxies, network_of
from autoglm.common.process import raise_open_file_limit
from autoglm.http1.body import HIGH_WATER_BYTES
from autoglm.http1.exchange import BadBody, Exchange
from autoglm.http1.heads import Fields
from autoglm.http1.rules import DEFAULT_LIMITS, Events, Limits, Timeouts
from autoglm.http1.server import Server

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"


def server_of(
    handler: Callable[[Exchange], object],
    clock: Clock | None = None,
    limits: Limits = DEFAULT_LIMITS,
    events: Events | None = None,
) -> Server:
    clock = clock or Clock()
    return Server(handler, reject, clock=clock, limits=limits, events=events)  # type: ignore[arg-type]


@pytest.mark.parametrize("trusting", [False, True])
async def test_every_ipv6_address_takes_ipv4_connections_as_well(trusting: bool) -> None:
    """With trusted proxies another listener accepts."""
    proxies = TrustedProxies(["192.0.2.1/32"]).trusts if trusting else None
    server = server_of(Seen(), limits=replace(DEFAULT_LIMITS, is_proxy=proxies))
    port = await server.start("::", 0)
    try:
        for host in ("::1", "127.0.0.1"):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
    finally:
        await server.stop(0)


@pytest.mark.parametrize("size", [1, 5, 10_000])
async def test_requests_are_handled_in_order_however_they_are_cut(size: int) -> None:
    chunked = b"PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = GET + POST + chunked + b"2\r\nde\r\n1\r\nf\r\n0\r\nT: t\r\n\r\n" + GET
    seen = Seen()
    wire = Wire(server_of(seen))
    await wire.send(*(raw[at : at + size] for at in range(0, len(raw), size)))

    assert seen.requests == [
        ("GET", b"/a", b""),
        ("POST", b"/b", b"abc"),
        ("PUT", b"/c", b"def"),
        ("GET", b"/a", b""),
    ]
    assert wire.statuses == [200] * 4
    assert not wire.is_closed and wire.reads


async def test_white_space_around_a_value_is_not_part_of_it() -> None:
    seen: list[Fields] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.fields)
        exchange.respond(200, [], b"")

    await Wire(server_of(handler)).send(b"GET / HTTP/1.1\r\nHost: \t h \t \r\n\r\n")

    assert seen == [[(b"host", b"h")]]


async def test_a_whole_response_is_written_at_once_with_its_length() -> None:
    wire = Wire(server_of(Seen()))
    await wire.send(POST)

    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert body == b"/b=abc"
    lines = head.split(b"\r\n")
    assert lines[:3] == [b"HTTP/1.1 200 OK", b"x: y", b"content-length: 6"]
    assert lines[3].startswith(b"date: ") and len(lines) == 4


async def test_hundreds_of_pipelined_requests_wait_unparsed() -> None:
    handled = 0
    gate = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        nonlocal handled
        await gate.wait()
        handled += 1
        exchange.respond(200, [], b"")

    wire = Wire(server_of(handler))
    await wire.send(*[GET * 1000] * 3)
    assert not wire.reads
    gate.set()
    for _ in range(1000):
        await settle()

    assert wire.statuses == [200] * 3000
    assert wire.reads


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        # llhttp takes this for HTTP/0.9, with headers and a body.
        (b"GET /x\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 505),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na", 400),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n", 417),
        (b"GET /" + 70_000 * b"a", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + 7_000 * b"x: 123456789\r\n" + b"\r\n", 431),
    ],
)
async def test_an_invalid_head_is_rejected_and_the_connection_ends(raw: bytes, status: int) -> None:
    seen, clock = Seen(), Clock()
    server = server_of(seen, clock)
    wire = Wire(server)
    await wire.send(raw)

    assert wire.statuses == [status]
    assert b"connection: close\r\n" in wire.written
    assert seen.requests == []
    await wire.send(GET)
    assert wire.statuses == [status], "what follows is discarded"
    clock.now += 3
    wire.connection.check(clock.now)
    assert wire.is_closed


@pytest.mark.parametrize(
    "host", [b"", b"a", b"a_b.c:8080", b"10.0.0.1:80", b"[fd00::1]:80", b"%41"]
)
async def test_a_host_is_a_name_or_an_address_with_a_port_or_without(host: bytes) -> None:
    wire = Wire(server_of(Seen()))
    await wire.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")

    assert wire.statuses == [200]


async def test_a_request_before_an_invalid_one_is_still_handled() -> None:
    seen = Seen()
    wire = Wire(server_of(seen))
    await wire.send(POST + b"nonsense\r\n\r\n")

    assert seen.requests == [("POST", b"/b", b"abc")]
    assert wire.statuses == [200] and b"connection: close" in wire.written
    assert wire.has_eof


async def test_an_invalid_chunk_is_an_error_of_the_body() -> None:
    seen = Seen()
    wire = Wire(server_of(seen))
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    await wire.send(head + b"1\r\na\r\nzz\r\n")

    assert wire.statuses == [400] and wire.has_eof
    assert "not valid HTTP" in str(seen.errors[0])


async def test_single_byte_chunks_are_allowed_and_endless_framing_is_not() -> None:
    seen = Seen()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire = Wire(server_of(seen))
    await wire.send(head, *[b"1\r\na\r\n" * 1000] * 50, b"0\r\n\r\n")
    assert wire.statuses == [200] and len(seen.requests[0][2]) == 50_000

    wire = Wire(server_of(seen))
    await wire.send(head, b"1;" + 100_000 * b"e")
    assert wire.statuses == [400]


async def test_continue_is_sent_only_to_a_client_whose_body_is_wanted() -> None:
    head = POST.replace(b"Host", b"Expect: 100-continue\r\nHost")[:-3]
    wire = Wire(server_of(Seen()))
    await wire.send(head)
    assert wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"abc")
    assert wire.statuses == [100, 200] and not wire.is_closed

    async def unauthenticated(exchange: Exchange) -> None:
        exchange.respond(401, [], b"")

    wire = Wire(server_of(unauthenticated))
    await wire.send(head)
    assert wire.statuses == [401] and b"connection: close" in wire.written


async def test_after_a_rejection_whose_long_body_has_not_arrived_the_connection_ends() -> None:
    async def unauthenticated(exchange: Exchange) -> None:
        exchange.respond(401, [], b"who?")

    clock = Clock()
    wire = Wire(server_of(unauthenticated, clock))
    await wire.send(POST.replace(b": 3", b": 9999999"))
    assert wire.statuses == [401] and b"connection: close" in wire.written
    assert wire.has_eof and not wire.is_closed
    await wire.send(*[bytes(100_000)] * 5)
    assert not wire.is_closed, "so that the client can read the response"
    await wire.send(*[bytes(100_000)] * 6)
    assert wire.is_closed, "but not without end"


async def test_a_response_without_a_length_is_chunked() -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.write(b"one")
        exchange.write(b"")
        exchange.write(b"two")
        await exchange.drain()
        exchange.finish()

    wire = Wire(server_of(handler))
    await wire.send(GET)
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"

    wire = Wire(server_of(handler))
    await wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert body == b"onetwo" and wire.is_closed


@pytest.mark.parametrize(
    ("request_head", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
async def test_a_connection_is_kept_as_the_client_requests(
    request_head: bytes, closes: bool
) -> None:
    wire = Wire(server_of(Seen()))
    await wire.send(request_head)

    assert wire.is_closed is closes
    assert (b"connection: close" in wire.written) is closes


async def test_a_response_to_head_has_the_length_and_no_body() -> None:
    wire = Wire(server_of(Seen()))
    await wire.send(GET.replace(b"GET", b"HEAD"))

    assert b"content-length: 3\r\n" in wire.written
    assert wire.written.endswith(b"\r\n\r\n") and not wire.is_closed


async def test_an_upgrade_is_ignored_and_the_body_is_kept() -> None:
    seen = Seen()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nHost"
    wire = Wire(server_of(seen))
    raw = POST.replace(b"Host", upgrade) + GET.replace(b"Host", upgrade) + GET
    await wire.send(raw[:-100], raw[-100:])

    assert seen.requests == [("POST", b"/b", b"abc"), ("GET", b"/a", b""), ("GET", b"/a", b"")]
    assert wire.statuses == [200] * 3


async def test_an_absolute_target_and_an_asterisk_reach_the_handler() -> None:
    seen = Seen()
    wire = Wire(server_of(seen))
    await wire.send(GET.replace(b"/a", b"http://h/a"), GET.replace(b"GET /a", b"OPTIONS *"))

    assert [target for _, target, _ in seen.requests] == [b"http://h/a", b"*"]


async def test_a_line_break_in_a_header_of_a_response_is_never_sent() -> None:
    failed: list[ValueError] = []

    async def handler(exchange: Exchange) -> None:
        try:
            exchange.respond(200, [(b"x", b"a\r\nset-cookie: b")], b"")
        except ValueError as error:
            failed.append(error)
        exchange.respond(500, [], b"")

    wire = Wire(server_of(handler))
    await wire.send(GET)

    assert wire.statuses == [500] and failed


async def test_a_handler_that_fails_ends_only_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(exchange: Exchange) -> None:
        raise KeyError("bug")

    wire = Wire(server_of(handler))
    await wire.send(GET)

    assert wire.is_aborted
    assert "unexpected error in a handler" in caplog.text


async def test_a_client_that_disconnects_cancels_its_handler() -> None:
    cancelled = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    wire = Wire(server_of(handler))
    await wire.send(GET)
    wire.connection.connection_lost(None)
    await settle()

    assert cancelled.is_set()


async def test_a_body_that_is_not_read_stops_the_connection_from_reading() -> None:
    gate = asyncio.Event()
    sizes = []

    async def handler(exchange: Exchange) -> None:
        await gate.wait()
        sizes.append(len(await exchange.read()))
        exchange.respond(200, [], b"")

    wire = Wire(server_of(handler))
    size = HIGH_WATER_BYTES + 1
    await wire.send(POST.replace(b": 3", b": %d" % size)[:-3], bytes(size))
    assert not wire.reads
    gate.set()
    await settle()

    assert sizes == [size] and bool(wire.reads)


class Waiting:
    """A handler that waits for the body, or for ever."""

    async def __call__(self, exchange: Exchange) -> None:
        while await exchange.read():
            pass
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("sent", "seconds", "status"),
    [
        (b"", Timeouts().idle, None),
        (GET[:-2], Timeouts().head, 408),
        (GET[:1], Timeouts().head, 408),
    ],
)
async def test_a_client_that_sends_nothing_more_is_ended(
    sent: bytes, seconds: float, status: int | None
) -> None:
    clock = Clock()
    wire = Wire(server_of(Seen(), clock))
    if sent:
        await wire.send(sent)
    clock.now += seconds - 0.1
    wire.connection.check(clock.now)
    assert not wire.is_closed and not wire.written
    clock.now += 0.2
    wire.connection.check(clock.now)
    await settle()

    assert wire.is_closed or wire.has_eof
    assert wire.statuses == ([status] if status else [])


async def test_a_body_that_drips_is_ended_with_a_408() -> None:
    seen, clock = Seen(), Clock()
    wire = Wire(server_of(seen, clock))
    await wire.send(POST.replace(b": 3", b": 99999"))
    for _ in range(25):
        clock.now += 1
        await wire.send(b"x")
        wire.connection.check(clock.now)
    await settle()

    assert wire.statuses == [408] and wire.has_eof


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (POST.replace(b": 3", b": %d" % (HIGH_WATER_BYTES + 9))[:-3], bytes(HIGH_WATER_BYTES + 1)),
        (POST.replace(b"Host: h", b"Host: h\r\nExpect: 100-continue")[:-3], b""),
    ],
    ids=["paused", "continue"],
)
async def test_time_in_which_a_handler_does_not_read_is_not_the_clients(
    head: bytes, body: bytes
) -> None:
    clock, gate = Clock(), asyncio.Event()
    failures: list[Exception] = []

    async def handler(exchange: Exchange) -> None:
        await gate.wait()
        try:
            while await exchange.read():
                pass
        except BadBody as error:
            failures.append(error)
            exchange.respond(error.status, [], b"")

    wire = Wire(server_of(handler, clock))
    await wire.send(head, body)
    for _ in range(100):
        clock.now += 1
        wire.connection.check(clock.now)
    gate.set()
    await settle()
    assert not failures and not wire.statuses.count(408)
    for _ in range(30):
        clock.now += 1
        wire.connection.check(clock.now)
    await settle()

    assert [error.status for error in failures if isinstance(error, BadBody)] == [408]


async def test_a_slow_but_steady_body_is_read() -> None:
    seen, clock = Seen(), Clock()
    wire = Wire(server_of(seen, clock))
    await wire.send(POST.replace(b": 3", b": 100003"))
    for _ in range(100):
        clock.now += 1
        await wire.send(bytes(1000))
        wire.connection.check(clock.now)

    assert wire.statuses == [200]


async def test_a_handler_may_take_any_time() -> None:
    clock = Clock()
    wire = Wire(server_of(Waiting(), clock))
    await wire.send(POST)
    clock.now += 10_000
    wire.connection.check(clock.now)

    assert not wire.is_closed


async def test_a_client_that_reads_nothing_is_ended() -> None:
    clock = Clock()

    async def handler(exchange: Exchange) -> None:
        exchange.start(200, [])
        while True:
            exchange.write(b"x")
            await exchange.drain()
            await asyncio.sleep(0)

    wire = Wire(server_of(handler, clock))
    wire.connection.pause_writing()
    await wire.send(GET)
    written = len(wire.written)
    clock.now += 61
    wire.connection.check(clock.now)
    await settle()

    assert wire.is_aborted and len(wire.written) == written


async def test_a_full_server_says_so_and_the_client_can_read_it() -> None:
    clock = Clock()
    server = server_of(Seen(), clock, Limits(1, 1))
    busy = Wire(server)
    await busy.send(GET[:-2])
    wire = Wire(server, "192.0.2.2")
    await wire.send(POST)
    assert wire.statuses == [429] and wire.has_eof and not wire.is_closed
    assert b"--max-connections)" in wire.written
    assert list(server.connections) == [busy.connection]

    clock.now += Timeouts().linger + 0.1
    server.check_timeouts()
    assert wire.is_closed


async def test_of_connections_over_the_limit_only_the_latest_are_kept() -> None:
    server = server_of(Seen(), limits=Limits(0, 0))
    wires = [Wire(server) for _ in range(100)]
    await settle()

    assert all(wire.statuses == [429] for wire in wires)
    kept = [not wire.is_closed for wire in wires]
    assert any(kept) and kept == sorted(kept) and sum(kept) <= 20
    await server.stop(0)
    assert all(wire.is_closed for wire in wires)


LIMITS = Limits(8, 3, network_of, is_proxy=TrustedProxies(["10.0.0.0/8"]).trusts)


async def test_an_idle_connection_is_closed_for_a_newcomer_of_its_address() -> None:
    clock = Clock()
    server = server_of(Seen(), clock, LIMITS)
    first, second, third = (Wire(server) for _ in range(3))
    await first.send(GET)
    other = Wire(server, "192.0.2.2")
    newcomer = Wire(server)
    await newcomer.send(GET)

    assert newcomer.statuses == [200] and not newcomer.is_closed
    assert second.is_closed, "the one that was idle longest"
    assert not (first.is_closed or third.is_closed or other.is_closed)
    assert len(server.connections) == 4


async def test_an_address_is_rejected_where_none_of_its_connections_is_idle() -> None:
    server = server_of(Seen(), limits=LIMITS)
    busy = [Wire(server) for _ in range(3)]
    for wire, begun in zip(busy, (GET[:1], POST[:-1], GET[:-2]), strict=True):
        await wire.send(begun)
    newcomer, other = Wire(server), Wire(server, "192.0.2.2")
    await newcomer.send(GET)
    await other.send(GET)

    assert newcomer.statuses == [429] and b"--max-connections-per-address" in newcomer.written
    assert other.statuses == [200]
    assert not any(wire.is_closed for wire in busy)
    await busy[1].send(b"c")
    await Wire(server).send(GET)
    assert busy[1].statuses == [200] and busy[1].is_closed, "idle behind its response"


async def test_an_ipv6_network_is_one_client() -> None:
    server = server_of(Seen(), limits=LIMITS)
    wires = [Wire(server, f"2001:db8::{number}") for number in range(4)]
    other = Wire(server, "2001:db8:0:1::1")
    await settle()

    assert [wire.is_closed for wire in wires] == [True, False, False, False]
    assert not other.is_closed


async def test_a_full_server_closes_what_has_been_idle_longest_of_all() -> None:
    server = server_of(Seen(), limits=LIMITS)
    wires = [Wire(server, f"192.0.2.{number}") for number in range(8)]
    await wires[0].send(GET)
    await wires[1].send(GET[:5])
    newcomer = Wire(server, "192.0.2.100")
    await newcomer.send(GET)

    assert newcomer.statuses == [200]
    assert [wire.is_closed for wire in wires] == [False, False, True, *[False] * 5]


async def test_a_trusted_proxy_is_no_client() -> None:
    server = server_of(Seen(), limits=LIMITS)
    wires = [Wire(server, "10.0.0.1") for _ in range(8)]
    await settle()

    assert not any(wire.is_closed for wire in wires)


async def test_a_closed_connection_whose_client_does_not_read_ends_after_the_linger_time() -> None:
    clock = Clock()
    server = server_of(Seen(), clock, Limits(1, 1))
    idle = Wire(server)
    idle.close = lambda: None  # type: ignore[method-assign]  # the transport has bytes to write
    Wire(server)
    clock.now += Timeouts().linger + 0.1
    server.check_timeouts()

    assert idle.is_aborted


@dataclass
class Noted:
    open: int = 0
    reasons: list[str] = field(default_factory=list)

    def accepted(self) -> None:
        self.open += 1

    def closed(self, reason: str) -> None:
        self.open -= 1
        self.reasons.append(reason)

    def rejected(self, reason: str) -> None:
        self.reasons.append(f"rejected: {reason}")


CLOSE = GET.replace(b"Host", b"Connection: close\r\nHost")


@pytest.mark.parametrize(
    ("sent", "seconds", "reason"),
    [
        (b"", 0, "client"),
        (GET, 0, "client"),
        (POST[:-1], 0, "client"),
        (CLOSE, 0, "finished"),
        (b"nonsense\r\n\r\n", 0, "invalid"),
        (POST + b"nonsense\r\n\r\n", 0, "invalid"),
        (b"", 80, "idle"),
        (GET[:1], 16, "slow_head"),
        (POST[:-1], 21, "slow_body"),
    ],
)
async def test_each_end_has_one_reason(sent: bytes, seconds: float, reason: str) -> None:
    noted, clock = Noted(), Clock()
    server = server_of(Seen(), clock, events=noted)
    wire = Wire(server)
    assert noted.open == 1
    if sent:
        await wire.send(sent)
    clock.now += seconds
    server.check_timeouts()
    await settle()
    clock.now += 3
    server.check_timeouts()
    await settle()
    if not wire.is_closed:
        wire.connection.connection_lost(None)

    assert noted.open == 0 and noted.reasons == [reason]


async def test_limits_a_drain_and_what_the_gateway_ends_have_reasons_too() -> None:
    noted = Noted()
    server = server_of(Seen(), limits=LIMITS, events=noted)
    wires = [Wire(server) for _ in range(4)]
    assert noted.reasons == ["limit_per_address"] and noted.open == 3
    for wire in wires[1:]:
        await wire.send(GET[:1])
    Wire(server)
    assert noted.reasons.pop() == "rejected: limit_per_address" and noted.open == 3
    for number in range(5):
        await Wire(server, f"192.0.2.{number}0").send(GET[:1])
    Wire(server, "192.0.2.99")
    assert noted.reasons.pop() == "rejected: limit" and noted.open == 8

    wires[1].connection.abort()
    wires[2].connection.pause_writing()
    server.clock.now += 61  # type: ignore[attr-defined]
    server.check_timeouts()
    await settle()
    assert noted.reasons[1:3] == ["aborted", "stalled_reader"]
    await server.stop(0)
    assert noted.open == 0


async def test_a_drain_is_the_reason_of_the_connections_that_it_ends() -> None:
    noted = Noted()
    server = server_of(Seen(), events=noted)
    late = Wire(server)
    Wire(server)
    server.begin_drain()
    await late.send(GET)
    await server.stop(1)

    assert noted.reasons == ["drain", "drain"]


async def test_draining_ends_each_connection_with_its_response_and_stopping_idle_ones() -> None:
    server = server_of(Seen())
    idle, late, busy = Wire(server), Wire(server), Wire(server)
    await busy.send(POST[:-1])
    server.begin_drain()
    await late.send(GET)
    assert late.statuses == [200] and b"connection: close" in late.written and late.is_closed
    assert not idle.is_closed and not busy.is_closed

    stopping = asyncio.create_task(server.stop(60.0))
    await settle()
    assert bool(idle.is_closed) and busy.written == b""
    await busy.send(b"c")
    await stopping
    assert busy.statuses == [200] and b"connection: close" in busy.written
    assert busy.is_closed


async def test_stopping_without_grace_waits_until_handlers_have_been_cancelled() -> None:
    cancelled = False

    async def handler(exchange: Exchange) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cancelled = True

    server = server_of(handler)
    await Wire(server).send(GET)
    await server.stop(0)

    assert cancelled and not server.connections


class Rejecting:
    """A handler that reads no body."""

    async def __call__(self, exchange: Exchange) -> None:
        exchange.respond(401, [], b"")


async def test_the_rest_of_a_short_body_is_discarded_and_the_connection_kept() -> None:
    wire = Wire(server_of(Rejecting()))
    await wire.send(POST[:-3])
    assert wire.statuses == [401] and b"connection: close" not in wire.written
    await wire.send(b"abc" + GET[:10], GET[10:])

    assert wire.statuses == [401, 401] and not wire.is_closed


async def test_a_discarded_body_that_drips_ends_the_connection() -> None:
    clock = Clock()
    wire = Wire(server_of(Rejecting(), clock))
    await wire.send(POST.replace(b": 3", b": 5000"))
    for _ in range(30):
        clock.now += 1
        await wire.send(b"x")
        wire.connection.check(clock.now)

    assert wire.statuses == [401] and wire.is_closed


async def test_the_head_of_a_pipelined_request_is_timed_from_its_first_byte() -> None:
    clock = Clock()
    wire = Wire(server_of(Seen(), clock))
    await wire.send(GET + GET[:5])
    clock.now += Timeouts().head + 0.1
    wire.connection.check(clock.now)

    assert wire.statuses == [200, 408]


async def test_a_rejection_has_the_target_and_fields_that_had_arrived_and_no_others() -> None:
    seen: list[tuple[bytes, Fields]] = []

    def note(exchange: Exchange, status: int, why: str) -> None:
        seen.append((exchange.target, exchange.fields))
        exchange.respond(status, [], b"")

    server = Server(Seen(), note, clock=Clock())
    await Wire(server).send(b"GET /a HTTP/1.1\r\nX: y\r\nA: b\r\nHost : h\r\n\r\n")
    wire = Wire(server)
    await wire.send(GET)
    await wire.send(b"\x00nonsense\r\n\r\n")

    assert seen == [(b"/a", [(b"x", b"y")]), (b"", [])]


async def test_a_handler_that_aborts_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(200, [])
        exchange.abort()

    wire = Wire(server_of(handler))
    await wire.send(GET)

    assert wire.is_aborted and not caplog.records


async def test_an_aborted_connection_that_has_not_ended_yet_is_left_in_peace() -> None:
    clock = Clock()
    server = server_of(Seen(), clock)
    wire = Wire(server)
    await wire.send(GET[:5])
    wire.connection.abort()
    clock.now += 1_000
    server.check_timeouts()
    wire.connection.data_received(GET[5:])
    await settle()

    assert wire.written == b"" and not server.connections
    await server.stop(0)


async def test_a_connection_that_has_ended_is_freed_without_a_garbage_collection() -> None:
    gc.collect()
    gc.disable()
    try:
        wire = Wire(server_of(Seen()))
        await wire.send(POST)
        wire.connection.connection_lost(None)
        ended = weakref.ref(wire.connection)
        wire.connection = None  # type: ignore[assignment]
        assert ended() is None
    finally:
        gc.enable()


async def test_hundreds_of_connections_at_once_fit_on_a_unix_socket(tmp_path: Path) -> None:
    """Envoy opens one for each request that waits for a decision."""
    allowed = int(Path("/proc/sys/net/core/somaxconn").read_text())  # noqa: ASYNC240
    count = min(2000, allowed, raise_open_file_limit() // 4)
    server, path = server_of(Seen()), str(tmp_path / "socket")
    await server.start_unix(path)
    with ExitStack() as opened:
        for _ in range(count):
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            # Raises BlockingIOError where the backlog is full.
            client.connect(path)
    await server.stop(0)
