"""One HTTP/1.1 connection on which bytes are sent as they are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

SECONDS = 10.0
_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Received:
    """A response. Names of headers are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        return ", ".join(self.all(name))


class RawClient:
    """Sends bytes, and reads responses by their framing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, raw: bytes) -> None:
        self._writer.write(raw)

    def end(self) -> None:
        """Close the client's side."""
        self._writer.write_eof()

    async def receive(self, method: str = "GET") -> Received | None:
        """The next response, interim ones included; None where the connection has ended."""
        async with asyncio.timeout(SECONDS):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = [line.partition(":") for line in lines if line]
            headers = [(name.lower(), value.strip()) for name, _, value in pairs]
            found = Received(int(first.split()[1]), headers, b"")
            body = await self._body(found, method)
            return Received(found.status, headers, body)

    async def is_kept(self) -> bool:
        """Whether the connection serves another request."""
        try:
            self.send(_HEALTH)
            found = await self.receive()
        except ConnectionError:
            return False
        return found is not None and found.status == 200

    async def _body(self, head: Received, method: str) -> bytes:
        if method == "HEAD" or head.status < 200 or head.status in (204, 304):
            return b""
        if head.one("transfer-encoding") == "chunked":
            return b"".join([chunk async for chunk in self._chunks()])
        if length := head.one("content-length"):
            return await self._reader.readexactly(int(length))
        return await self._reader.read()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            """A trailer."""


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[RawClient]:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()
