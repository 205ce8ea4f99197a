"""The process that attacks. Run by `benchmarks.attacks.run`, which ends it.

Writes an empty line when it can begin, then reads an `Order` from its standard input as JSON, and
writes `Seen` to its standard output as JSON.
Rejects every address but loopback. Its own address is 127.0.0.2, so that a bound for each client
address applies to it alone.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

import msgspec

from benchmarks.attacks import http1, http2
from benchmarks.attacks.kinds import BY_NAME, Connection, Kind

SOURCE = "127.0.0.2"
_AT_ONCE = 1 << 16
_UNREAD_BUFFER = 4096
_CONNECT_SECONDS = 5.0
_TURN_SECONDS = 0.01
_IN_PROGRESS = {errno.EAGAIN, errno.EWOULDBLOCK}


class Order(msgspec.Struct):
    """What is attacked, and for how long."""

    kind: str
    host: str
    port: int
    seconds: float
    key: str


class Seen(msgspec.Struct):
    """What the attacker saw. `ended` has the ages in seconds at which the server ended some."""

    statuses: dict[str, int] = {}
    connections: int = 0
    rejected: int = 0
    """Connections that could not be opened."""
    ended: list[float] = []
    sent_bytes: int = 0


class Client:
    """One connection, which is never blocked on."""

    def __init__(self, of: Connection, kind: Kind, order: Order, seen: Seen) -> None:
        self._of, self._kind, self._seen = of, kind, seen
        self._reader = http2.Reader() if kind.wire == "gRPC" else http1.Reader()
        self._unsent, self._due = b"", 0.0
        self._socket = socket.socket()
        if not kind.reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BUFFER)
        self._socket.settimeout(_CONNECT_SECONDS)
        self._socket.bind((SOURCE, 0))
        self._socket.connect((order.host, order.port))
        self._socket.setblocking(False)
        self._opened, self.is_open = time.monotonic(), True
        seen.connections += 1

    def turn(self, now: float) -> None:
        """Read what came, and write what is due."""
        if self._kind.reads:
            self.read()
        elif self._is_reset():
            self._end()
        if self.is_open and not self._unsent and now >= self._due:
            self._unsent, self._due = next(self._of.writes, b""), now + self._kind.pause
        if self.is_open and self._unsent:
            self._write()

    def read(self) -> None:
        """Count all statuses that are there."""
        while self.is_open:
            try:
                data = self._socket.recv(_AT_ONCE)
            except OSError as error:
                if error.errno not in _IN_PROGRESS:
                    self._end()
                return
            for status in self._reader.feed(data):
                name = self._of.label + status
                self._seen.statuses[name] = self._seen.statuses.get(name, 0) + 1
            if not data:
                self._end()

    def close(self) -> None:
        self.is_open = False
        self._socket.close()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except OSError as error:
            if error.errno not in _IN_PROGRESS:
                self.read()
                if self.is_open:
                    self._end()
            return
        self._seen.sent_bytes += sent
        self._unsent = self._unsent[sent:]

    def _is_reset(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, 0)
        return bool(poll.poll(0))

    def _end(self) -> None:
        self._seen.ended.append(time.monotonic() - self._opened)
        self.close()


def attack(order: Order) -> Seen:
    """Attack for so many seconds. Raises ValueError for an address beyond this machine.

    Where the server ends all connections before, the rest of the time is what that left behind.
    """
    if not ip_address(order.host).is_loopback:
        raise ValueError(f"{order.host} is not a loopback address; nothing else is attacked")
    kind, seen, end = BY_NAME[order.kind], Seen(), time.monotonic() + order.seconds
    clients = list(_opened(kind, order, seen, end))
    while (now := time.monotonic()) < end:
        for client in clients:
            if client.is_open:
                client.turn(now)
        time.sleep(_TURN_SECONDS)
    for client in clients:
        client.read()
        client.close()
    return seen


def _opened(kind: Kind, order: Order, seen: Seen, end: float) -> Iterator[Client]:
    for connection in kind.connect(order.key):
        if time.monotonic() > end:
            return
        try:
            yield Client(connection, kind, order, seen)
        except OSError:
            seen.rejected += 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
        found = attack(msgspec.json.decode(sys.stdin.buffer.read(), type=Order))
        sys.stdout.buffer.write(msgspec.json.encode(found))
