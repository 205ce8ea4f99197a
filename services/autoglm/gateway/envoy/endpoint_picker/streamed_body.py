"""A request's body on its way through the endpoint picker: kept until it is known where it goes.

Whoever sends it is not read further than its beginning before a layer asks for the body; from then
on every piece counts. No I/O: the edge puts the pieces in, the layers wait for the whole.
"""

from __future__ import annotations

import asyncio
import io

from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy.request import check_length
from autoglm.gateway.request.memory_budget import MemoryReservation

# What comes along with the headers costs nothing to wait for.
BEGINNING_BYTES = 64 * 1024
# Around a gRPC message.
_ROOM_BYTES = 16


class StreamedBody:
    """Used by two tasks: the edge's puts in, the call's waits."""

    def __init__(self, limit: int, *, is_there: bool) -> None:
        loop = asyncio.get_running_loop()
        self._limit = limit
        # Grows in place, and gives its bytes without a copy.
        self._pieces = io.BytesIO()
        self._size = self._held = 0
        self._hold: MemoryReservation | None = None
        self.is_whole = not is_there
        self.wanted: asyncio.Future[None] = loop.create_future()
        """Done once somebody waits for the whole."""
        self._whole: asyncio.Future[None] = loop.create_future()

    @property
    def is_long(self) -> bool:
        """Whether no more should be read before somebody wants it."""
        return self._size >= BEGINNING_BYTES and not self.wanted.done()

    def add(self, piece: bytes, *, is_last: bool) -> None:
        self._pieces.write(piece)
        self._size += len(piece)
        self.is_whole = self.is_whole or is_last
        self._tell()

    def end(self) -> None:
        self.is_whole = True
        self._tell()

    async def whole(self, hold: MemoryReservation) -> bytes:
        """All of it, once. Raises RequestTooLarge, or QueueFull where it finds no room."""
        self._hold = hold
        self.wanted.set_result(None)
        self._tell()
        await self._whole
        return self._pieces.getvalue()

    def take(self) -> bytes:
        """What has come so far; from now on it is not kept here."""
        taken, self._pieces = self._pieces.getvalue(), io.BytesIO()
        if self._hold is not None:
            self._hold.give(self._held)
            self._held = 0
        return taken

    def _tell(self) -> None:
        if self._hold is None or self._whole.done():
            return
        try:
            check_length(self._size - _ROOM_BYTES, self._limit)
            more = self._size - self._held
            self._hold.take(more)
            self._held += more
        except AutoGLMError as error:
            self._whole.set_exception(error)
            return
        if self.is_whole:
            self._whole.set_result(None)
