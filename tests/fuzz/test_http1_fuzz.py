"""Any bytes on a connection of the HTTP/1.1 server: what is valid is served, all else is not.

The oracle is a strict reading of RFC 9112, written for these tests alone: no request reaches the
handler that it does not find at the same place with the same body.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.http1_wire import Clock, Seen, Wire, reject, settle
from tests.support.soak import examples

from autoglm.http1.body import HIGH_WATER_BYTES
from autoglm.http1.exchange import Exchange
from autoglm.http1.heads import MAX_HEAD_BYTES
from autoglm.http1.server import Server

FUZZ = settings(max_examples=examples(200), deadline=None)
Request = tuple[str, bytes, bytes]
"""Method, target and body."""

# llhttp takes several spaces, as RFC 9112 (3) allows.
_LINE = re.compile(rb"([!#-'*+.^_`|~0-9A-Za-z-]+) +([!-~\x80-\xff]+) HTTP/1\.([01])\r\n")
_FIELD = re.compile(
    rb"([!#-'*+.^_`|~0-9A-Za-z-]+):[ \t]*"
    rb"([!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?[ \t]*\r\n"
)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t!-~\x80-\xff]*)?\r\n")


class Invalid(ValueError):
    """Not a request, or not a whole one."""


@dataclass
class Oracle:
    """Reads requests from bytes, one after the other."""

    raw: bytes
    at: int = 0

    def requests(self) -> list[Request]:
        """Return all requests before the first that is invalid or not whole."""
        found: list[Request] = []
        try:
            while True:
                # Behind a request llhttp skips any of these, of which RFC 9112 (2.2) wants CR LF.
                self.at += len(self.raw[self.at :]) - len(self.raw[self.at :].lstrip(b"\r\n"))
                found.append(self._request())
        except Invalid:
            return found

    def _request(self) -> Request:
        method, target, minor = self._match(_LINE)
        fields = self._fields()
        lengths = [value for name, value in fields if name == b"content-length"]
        codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
        hosts = [value for name, value in fields if name == b"host"]
        if len(hosts) > 1 or (minor == b"1" and not hosts):
            raise Invalid("hosts")
        if codings:
            if codings != [b"chunked"] or lengths or minor == b"0":
                raise Invalid("framing")
            return method.decode(), target, self._chunks()
        if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]+", each) for each in lengths):
            raise Invalid("length")
        return method.decode(), target, self._take(int(lengths[0]) if lengths else 0)

    def _fields(self) -> list[tuple[bytes, bytes]]:
        fields = []
        while not self.raw.startswith(b"\r\n", self.at):
            name, value = self._match(_FIELD)
            fields.append((name.lower(), value or b""))
        self.at += 2
        return fields

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._match(_CHUNK)[0], 16):
            body += self._take(size)
            self._expect_end()
        self._fields()
        return body

    def _match(self, pattern: re.Pattern[bytes]) -> Sequence[bytes]:
        found = pattern.match(self.raw, self.at)
        if found is None:
            raise Invalid("bytes")
        self.at = found.end()
        return found.groups()

    def _take(self, size: int) -> bytes:
        if len(self.raw) - self.at < size:
            raise Invalid("not whole")
        self.at += size
        return self.raw[self.at - size : self.at]

    def _expect_end(self) -> None:
        if self._take(2) != b"\r\n":
            raise Invalid("chunk")


TOKENS = st.text("abcXYZ-_1", min_size=1, max_size=8).map(str.encode)
VALUES = st.text("aZ0 \t;,=é", max_size=12).map(lambda text: text.strip(" \t").encode("latin-1"))
OTHER_FIELDS = st.lists(st.tuples(TOKENS.map(b"x-".__add__), VALUES), max_size=4)
# The echo of a status line would count as another response.
BODIES = st.binary(max_size=60).filter(lambda body: not re.search(rb"HTTP/1\.1 \d", body))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request, with a body of any framing."""
    method = draw(st.sampled_from((b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS")))
    fields = [(b"Host", b"h"), *draw(OTHER_FIELDS)]
    body = draw(BODIES)
    match draw(st.sampled_from(("none", "length", "chunked"))):
        case "none":
            body = b""
        case "length":
            fields.append((b"Content-Length", b"%d" % len(body)))
        case _:
            fields.append((b"Transfer-Encoding", draw(st.sampled_from((b"chunked", b"Chunked")))))
            size = draw(st.integers(1, 20))
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            extension = draw(st.sampled_from((b"", b";a=b")))
            body = b"".join(b"%x%b\r\n%b\r\n" % (len(p), extension, p) for p in pieces)
            body += b"0\r\n" + draw(st.sampled_from((b"", b"T: t\r\n"))) + b"\r\n"
    draw(st.randoms(use_true_random=False)).shuffle(fields)
    lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
    return b"%b /%b HTTP/1.1\r\n%b\r\n%b" % (method, draw(TOKENS), lines, body)


PIECES = (
    *(b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"0", b"\x7f", b"\xff", b";", b","),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n", b" folded\r\n"),
    *(b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"identity, "),
    *(b"HTTP/1.0", b"HTTP/2.0", b"+", b"-", b"0x", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Valid requests with a few changes."""
    raw = b"".join(draw(st.lists(requests(), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        gone = draw(st.integers(0, 3))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=2)))
        raw = raw[:at] + piece + raw[at + gone :]
    return raw


def cut(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(raw), *(each % (len(raw) + 1) for each in cuts)})
    return [raw[first:last] for first, last in zip(places, places[1:], strict=False)]


CUTS = st.lists(st.integers(0, 10_000), max_size=20)


async def served(parts: list[bytes]) -> tuple[Seen, Wire]:
    """What the handler got of bytes that arrive in these parts, and the connection at its end."""
    seen, clock = Seen(), Clock()
    wire = Wire(Server(seen, reject, clock=clock))
    for part in parts:
        await wire.send(part)
    for _ in range(10):
        await settle()
    for _ in range(4):
        # Every timeout, so that nothing stays for ever.
        clock.now += 100
        wire.connection.check(clock.now)
        await settle()
    return seen, wire


@FUZZ
@given(st.lists(requests(), min_size=1, max_size=6), CUTS)
@example([b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nHTTP/1.1 "], [])
def test_valid_requests_reach_the_handler_however_they_are_cut(
    sent: list[bytes], cuts: list[int]
) -> None:
    raw = b"".join(sent)
    expected = Oracle(raw).requests()
    assert len(expected) == len(sent)
    seen, wire = asyncio.run(served(cut(raw, cuts)))
    assert seen.requests == expected
    assert wire.statuses == [200] * len(sent)


@FUZZ
@given(mutated(), CUTS)
def test_no_invalid_request_reaches_the_handler(raw: bytes, cuts: list[int]) -> None:
    valid = Oracle(raw).requests()
    seen, wire = asyncio.run(served(cut(raw, cuts)))
    assert seen.requests == valid[: len(seen.requests)]
    assert wire.statuses.count(200) == len(seen.requests)
    # Once something is invalid the connection is over, with at most one response that says so.
    assert all(status == 200 for status in wire.statuses if status != 100) or (
        [status for status in wire.statuses if status not in (100, 200)] == wire.statuses[-1:]
    )
    assert wire.is_closed


@FUZZ
@given(st.binary(max_size=400), CUTS)
def test_any_bytes_end_in_a_response_or_a_closed_connection(raw: bytes, cuts: list[int]) -> None:
    seen, wire = asyncio.run(served(cut(raw, cuts)))
    assert seen.requests == Oracle(raw).requests()[: len(seen.requests)]
    assert wire.is_closed


async def _held(unit: bytes, part: int) -> int:
    """The most bytes that a connection holds whose handler reads nothing."""

    async def handler(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    wire = Wire(Server(handler, reject, clock=Clock()))
    connection, sent, most = wire.connection, 0, 0
    endless = unit * (part // len(unit) + 2)
    while wire.reads and not wire.is_closed and sent < 1024 * 1024:
        await wire.send(endless[sent % len(unit) :][:part])
        sent += part
        reading = connection._parser.reading if not connection.is_lost else None
        fields = [] if connection.is_lost else connection._parser.fields
        held = sum(map(len, connection._backlog)) + (reading._buffered if reading else 0)
        held += sum(len(name) + len(value) for name, value in fields)
        most = max(most, held)
    connection.abort()
    await settle()
    return most


@settings(max_examples=examples(25), deadline=None)
@given(
    st.one_of(requests(), mutated(), st.binary(min_size=1, max_size=100)),
    st.sampled_from((4096, 65536)),
)
def test_what_a_connection_holds_is_bounded(unit: bytes, part: int) -> None:
    most = asyncio.run(_held(unit, part))
    assert most <= HIGH_WATER_BYTES + MAX_HEAD_BYTES + 2 * part
