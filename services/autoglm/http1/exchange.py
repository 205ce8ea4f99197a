"""One request of a server's connection, and the response to it."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from autoglm.http1.body import BodyBuffer
from autoglm.http1.heads import Fields

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}".encode() for s in HTTPStatus}
_NO_BODY = (204, 304)
# So much of a body that the response did not wait for is discarded, to keep the connection.
_MAX_DISCARDED_BYTES = 64 * 1024
_date = (0, b"")


class Wire(Protocol):
    """The connection under an exchange."""

    peer: str
    """The IP address of the other end; empty on a Unix socket."""
    is_local: bool
    is_lost: bool
    stalled_seconds: float
    can_write: asyncio.Future[None] | None
    """Set while the client reads more slowly than it is written to."""

    @property
    def is_draining(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...


class ClientDisconnected(ConnectionError):
    """The client's connection ended before the response did."""


class BadBody(Exception):
    """The request's body is not HTTP, or too slow. `status` is that of the response."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Exchange(BodyBuffer):
    """A request with its head, whose body is read by `read`; its response is written here.

    The response is one `start`, any number of `write` (and `drain`), and one `finish`.
    """

    __slots__ = (
        "_connection",
        "_head",
        "_is_chunked",
        "_left",
        "announced",
        "fields",
        "is_finished",
        "is_http10",
        "is_kept_alive",
        "is_started",
        "method",
        "target",
        "waits_for_continue",
    )

    def __init__(self, connection: Wire, method: str, target: bytes, fields: Fields) -> None:
        super().__init__(connection)
        self._connection = connection
        self.method, self.target, self.fields = method, target, fields
        self.is_http10 = False
        self.is_kept_alive = True
        """Whether the connection takes another request after this one."""
        self.announced = 0
        """The length of the request's body in bytes; -1 where only its end shows it."""
        self.waits_for_continue = False
        self.is_started = False
        self.is_finished = False
        self._head = b""
        self._is_chunked = False
        self._left = -1

    @property
    def peer(self) -> str:
        """Return the IP address of the connection's other end; empty on a Unix socket."""
        return self._connection.peer

    @property
    def is_local(self) -> bool:
        """Return whether the connection is one of a Unix socket."""
        return self._connection.is_local

    @property
    def is_blocked(self) -> bool:
        """Return whether `drain` would wait."""
        return self._connection.can_write is not None

    @property
    def stalled_seconds(self) -> float:
        """Return how long the client read nothing, if that ended the connection; else 0."""
        return self._connection.stalled_seconds

    async def read(self) -> bytes:
        """Return the bytes of the body that have arrived, at least one; empty after the last.

        Sends `100 Continue` where the client waits for it. Raises BadBody or ClientDisconnected.
        """
        if self.waits_for_continue and not self.is_complete and not self.is_started:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.waits_for_continue = False
        return await super().read()

    def start(self, status: int, fields: Fields, length: int | None = None) -> None:
        """Begin the response. Without a length it is chunked, or ends with the connection.

        The head is sent with the first bytes of the body. Raises ValueError for a line break in
        a header field.
        """
        assert not self.is_started, "a response has one head"
        self.is_started = True
        connection = self._connection
        if self.method == "HEAD" or status in _NO_BODY:
            self._left = 0
        elif length is not None:
            self._left = length
        elif self.is_http10:
            self.is_kept_alive = False
        else:
            self._is_chunked = True
        if connection.is_draining or not (self.is_complete or self._is_rest_short):
            self.is_kept_alive = False
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown" % status]
        lines += [b"%b: %b" % pair for pair in fields]
        if length is not None and status != 204:
            lines.append(b"content-length: %d" % length)
        elif self._is_chunked:
            lines.append(b"transfer-encoding: chunked")
        if not self.is_kept_alive:
            lines.append(b"connection: close")
        elif self.is_http10:
            lines.append(b"connection: keep-alive")
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            self.is_started = False
            raise ValueError("a header field has a line break")
        self._head = head + b"\r\ndate: " + _now() + b"\r\n\r\n"

    @property
    def _is_rest_short(self) -> bool:
        """Return whether so little of the body is missing that it is discarded as it arrives."""
        return 0 <= self.announced <= _MAX_DISCARDED_BYTES and not self.waits_for_continue

    def write(self, data: bytes) -> None:
        """Send bytes of the body. Raises ClientDisconnected."""
        if self._connection.is_lost:
            raise ClientDisconnected("the client disconnected")
        if self._is_chunked and data and not self._head:
            # Every chunk of a stream but the first.
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        if self._left >= 0:
            data = data[: self._left]
            self._left -= len(data)
        elif self._is_chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        head, self._head = self._head, b""
        if head or data:
            self._connection.write(head + data)

    async def drain(self) -> None:
        """Wait while the client reads more slowly than it is written to.

        Raises ClientDisconnected.
        """
        if self._connection.can_write is not None:
            # Shielded, since a cancelled wait must not cancel those that follow.
            await asyncio.shield(self._connection.can_write)
        if self._connection.is_lost:
            raise ClientDisconnected("the client disconnected")

    def finish(self, data: bytes = b"") -> None:
        """Send the last bytes and end the response. Raises ClientDisconnected."""
        if self.is_finished:
            return
        self.is_finished = True
        if self._is_chunked:
            head, self._head = self._head, b""
            if self._connection.is_lost:
                raise ClientDisconnected("the client disconnected")
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
            self._connection.write(head + last)
        else:
            self.write(data)
            if self._left > 0:
                # Fewer bytes than announced: only the end of the connection shows it.
                self._connection.abort()

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        """Send a whole response."""
        self.start(status, fields, len(body))
        self.finish(body)

    def abort(self) -> None:
        """End the connection, so that the client notices an incomplete response."""
        self._connection.abort()


def _now() -> bytes:
    """Return the Date header's value, formatted once a second."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True).encode())
    return _date[1]
