"""Parses the requests of a connection with llhttp, and bounds what a client sends around them.

llhttp decides all framing. Added are the bounds of a head, of chunk framing and of trailers, and
the rules of `check_head`. Bodies go to the exchange of their request. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import httptools

from autoglm.http1.exchange import BadBody, Exchange, Wire
from autoglm.http1.heads import MAX_HEAD_BYTES
from autoglm.http1.rules import check_head

# Chunk framing and trailers: a client that sends single bytes needs five bytes of it for each.
_FREE_FRAMING_BYTES, _FRAMING_RATIO = 16 * 1024, 8
_LONG_HEAD = f"the request's head has more than {MAX_HEAD_BYTES} bytes, the limit"


class RequestParser:
    """Calls `on_begin` with the first bytes of a head, `on_request` with each whole head, and
    `on_end` when the request's body has arrived.
    """

    def __init__(
        self,
        connection: Wire,
        on_begin: Callable[[], None],
        on_request: Callable[[Exchange], None],
        on_end: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._on_begin, self._on_request, self._on_end = on_begin, on_request, on_end
        self._llhttp = httptools.HttpRequestParser(self)
        self.reading: Exchange | None = None
        """The exchange whose body arrives."""
        self.has_begun = False
        """Whether bytes of the next head have arrived."""
        self.target, self.fields = b"", list[tuple[bytes, bytes]]()
        """What has arrived of the next head."""
        self.body_bytes = 0
        self._raw_left = 0
        """Bytes of a body that llhttp does not parse, behind an ignored Upgrade."""
        self._in_head = True
        self._head_bytes = self._wire_bytes = 0

    def close(self) -> None:
        """Free llhttp, which refers to the parser: neither would be without a collection."""
        del self._llhttp

    def feed(self, data: memoryview) -> int:
        """Parse some bytes, and return how many were used. Raises BadBody for invalid ones."""
        if self._raw_left:
            used = min(self._raw_left, len(data))
            self._raw_left -= used
            self.on_body(bytes(data[:used]))
            if not self._raw_left:
                self._end_body()
            return used
        if self._in_head:
            self._note_begin()
            self._head_bytes += len(data)
        else:
            self._wire_bytes += len(data)
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        except httptools.HttpParserError as error:
            cause = error.__context__
            if cause is not None:
                raise cause from None
            raise BadBody(400, f"the request is not valid HTTP/1.1: {error}") from None
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            raise BadBody(431, _LONG_HEAD)
        if self._wire_bytes - self.body_bytes > (
            _FREE_FRAMING_BYTES + _FRAMING_RATIO * self.body_bytes
        ):
            raise BadBody(400, "the body's chunks have too much framing; send larger chunks")
        return len(data)

    # Called by llhttp

    def on_message_begin(self) -> None:
        self.target, self.fields = b"", []
        self._in_head = True
        self._note_begin()

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields behind the body are trailers, which no API has.
        if self._in_head:
            # llhttp leaves white space behind the value.
            self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        llhttp, fields = self._llhttp, self.fields
        self._in_head, self.has_begun = False, False
        self._head_bytes = self._wire_bytes = self.body_bytes = 0
        if len(self.target) + sum(map(len, chain.from_iterable(fields))) > MAX_HEAD_BYTES:
            raise BadBody(431, _LONG_HEAD)
        method, version = llhttp.get_method().decode(), llhttp.get_http_version()
        announced, waits_for_continue = check_head(
            method, version, fields, is_local=self._connection.is_local
        )
        exchange = Exchange(self._connection, method, self.target, fields)
        exchange.is_http10 = version == "1.0"
        exchange.is_kept_alive = llhttp.should_keep_alive()
        exchange.announced, exchange.waits_for_continue = announced, waits_for_continue
        if llhttp.should_upgrade():
            # An Upgrade is ignored, as RFC 9110 (7.8) allows; llhttp ends the message here.
            self._raw_left = announced
        self.reading = exchange
        self._on_request(exchange)

    def on_body(self, piece: bytes) -> None:
        self.body_bytes += len(piece)
        if self.reading is not None:
            self.reading.feed(piece)

    def on_message_complete(self) -> None:
        if not self._raw_left:
            self._end_body()

    def _note_begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._on_begin()

    def _end_body(self) -> None:
        exchange, self.reading = self.reading, None
        self._in_head, self.has_begun, self._head_bytes = True, False, 0
        self._wire_bytes = self.body_bytes = 0
        self.target, self.fields = b"", []
        if exchange is not None:
            exchange.end()
        self._on_end()
