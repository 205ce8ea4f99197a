"""A message's body as it arrives: what is not read yet, with a bound. For both ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

Write = Callable[[bytes], Awaitable[None] | None]
"""Takes bytes of a body. What it returns is awaited before it is called again."""

HIGH_WATER_BYTES = 256 * 1024
"""The connection stops reading while more than this of a body is not read."""


class Source(Protocol):
    """The connection from which a body arrives."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BodyBuffer:
    """The bytes of one body between a connection, which feeds it, and one reader.

    The reader either takes bytes by `read`, or has them passed to it by `relay`.
    """

    __slots__ = (
        "_blocked",
        "_buffered",
        "_error",
        "_is_discarded",
        "_is_paused",
        "_pieces",
        "_source",
        "_waiter",
        "_write",
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
        self._write: Write | None = None
        self._blocked: asyncio.Future[None] | None = None
        """What the receiver of `relay` has to be waited for."""
        self.is_complete = False
        """Whether the whole body has arrived."""

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    @property
    def buffered(self) -> int:
        """Return the bytes that have arrived and are not read yet."""
        return self._buffered

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

    async def relay(self, write: Write) -> None:
        """Pass the bytes to `write` as they arrive, until the last.

        No task runs for it: the connection calls `write`. Raises the error of `fail`, and what
        `write` raises.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiter, self._write = done, write
        try:
            self._pass_on()
            await done
        finally:
            self._waiter = self._write = None
            if self._blocked is not None:
                self._blocked.cancel()

    def _pass_on(self) -> None:
        """Pass on what is kept, unless the receiver has to be waited for, and end the relay."""
        write, done = self._write, self._waiter
        if write is None or done is None or self._blocked is not None:
            return
        if self._pieces:
            pieces = self._take()
            self._pass(write, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._blocked is not None or done.done():
            return
        if self._error is not None:
            done.set_exception(self._error)
        elif self.is_complete:
            done.set_result(None)

    def _pass(self, write: Write, data: bytes) -> None:
        try:
            waiting = write(data)
        except Exception as error:
            self._write = None
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
            return
        if waiting is not None:
            self._blocked = asyncio.ensure_future(waiting)
            self._blocked.add_done_callback(self._unblock)

    def _unblock(self, blocked: asyncio.Future[None]) -> None:
        self._blocked = None
        error = None if blocked.cancelled() else blocked.exception()
        if error is not None and self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self._pass_on()

    def discard(self) -> None:
        """Drop what has arrived and what still arrives. Called by the connection."""
        self._is_discarded = True
        self._take()

    def feed(self, piece: bytes) -> None:
        """Take bytes of the body. Called by the connection."""
        write = self._write
        if write is not None and self._blocked is None:
            self._pass(write, piece)
            return
        if self._is_discarded:
            return
        self._pieces.append(piece)
        self._buffered += len(piece)
        if self._buffered > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            self._source.pause_reading()
        if write is None and self._waiter is not None:
            self._wake()

    def end(self) -> None:
        """Note that the body is complete. Called by the connection."""
        self.is_complete = True
        if self._write is not None:
            self._pass_on()
        elif self._waiter is not None:
            self._wake()

    def fail(self, error: Exception) -> None:
        """Make the next wait for bytes raise the error."""
        if not self.is_complete and self._error is None:
            self._error = error
            if self._write is None:
                self._wake()
            else:
                self._pass_on()

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
