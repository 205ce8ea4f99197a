"""A message's body as it arrives: what is not read yet, with a bound. For both ends."""

from __future__ import annotations

import asyncio
from typing import Protocol

HIGH_WATER_BYTES = 256 * 1024
"""The connection stops reading while more than this of a body is not read."""


class Source(Protocol):
    """The connection from which a body arrives."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BodyBuffer:
    """The bytes of one body between a connection, which feeds it, and one reader."""

    __slots__ = (
        "_buffered",
        "_error",
        "_is_discarded",
        "_is_paused",
        "_pieces",
        "_source",
        "_waiter",
        "is_complete",
    )

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._is_paused = False
        self._is_discarded = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.is_complete = False
        """Whether the whole body has arrived."""

    async def read(self) -> bytes:
        """Return the bytes that have arrived, at least one; empty after the last.

        Raises the error of `fail`.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.is_complete:
                return b""
            await self._wait()
        pieces = self._take()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def discard(self) -> None:
        """Drop what has arrived and what still arrives. Called by the connection."""
        self._is_discarded = True
        self._take()

    def feed(self, piece: bytes) -> None:
        """Take bytes of the body. Called by the connection."""
        if self._is_discarded:
            return
        self._pieces.append(piece)
        self._buffered += len(piece)
        if self._buffered > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            self._source.pause_reading()
        self._wake()

    def end(self) -> None:
        """Note that the body is complete. Called by the connection."""
        self.is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Make the next wait for bytes raise the error."""
        if not self.is_complete and self._error is None:
            self._error = error
            self._wake()

    def _take(self) -> list[bytes]:
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        if self._is_paused:
            self._is_paused = False
            self._source.resume_reading()
        return pieces

    async def _wait(self) -> None:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
