"""A client's end of a connection to an HTTP/1.1 server, without sockets and in virtual time."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from autoglm.http1.exchange import BadBody, ClientDisconnected, Exchange
from autoglm.http1.server import Server
from autoglm.http1.server_connection import ServerConnection


class Wire(asyncio.Transport):
    """A client's end of a connection."""

    def __init__(self, server: Server, address: str = "192.0.2.1") -> None:
        super().__init__({"peername": (address, 5)})
        self.written = b""
        self.reads = True
        self.is_closed = self.is_aborted = self.has_eof = False
        self.connection = ServerConnection(server)
        self.connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_eof = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.is_aborted = True
        self.close()

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.connection.data_received(part)
        await settle()

    @property
    def statuses(self) -> list[int]:
        # Bodies of fuzzed requests, which come back, may have the version alone.
        return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) \w", self.written)]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Seen:
    """A handler that reads the whole body, and echoes method, target and body."""

    requests: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    async def __call__(self, exchange: Exchange) -> None:
        body = b""
        try:
            while piece := await exchange.read():
                body += piece
        except BadBody as error:
            self.errors.append(error)
            exchange.respond(error.status, [], str(error).encode())
            return
        except ClientDisconnected as error:
            self.errors.append(error)
            raise
        self.requests.append((exchange.method, exchange.target, body))
        exchange.respond(200, [(b"x", b"y")], exchange.target + b"=" + body)


def reject(exchange: Exchange, status: int, why: str) -> None:
    exchange.respond(status, [(b"content-type", b"text/plain")], why.encode())
