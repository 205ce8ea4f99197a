"""A request body in the endpoint picker, held until its pod is picked. No I/O.

Only the start of a body is read until the pipeline needs it; from then on every piece counts in
the memory budget. The edge adds the pieces, the pipeline waits for the whole body.
"""

from __future__ import annotations

import asyncio
import io

from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy.request import check_length
from autoglm.gateway.request.memory_budget import MemoryReservation

# The part of a body that is read before the pipeline needs it.
START_BYTES = 64 * 1024
# Space for the frame of a gRPC message.
_ROOM_BYTES = 16


class StreamedBody:
    """A body shared by two tasks: the edge adds pieces, the pipeline waits for the whole."""

    def __init__(self, limit: int, *, is_there: bool) -> None:
        loop = asyncio.get_running_loop()
        self._limit = limit
        # Grows in place and returns its bytes without a copy.
        self._pieces = io.BytesIO()
        self._size = self._held = 0
        self._hold: MemoryReservation | None = None
        self.is_whole = not is_there
        self.wanted: asyncio.Future[None] = loop.create_future()
        """Done once the pipeline waits for the whole body."""
        self._whole: asyncio.Future[None] = loop.create_future()

    @property
    def is_long(self) -> bool:
        """Return whether to read no more until the pipeline needs the body."""
        return self._size >= START_BYTES and not self.wanted.done()

    def add(self, piece: bytes, *, is_last: bool) -> None:
        """Add a piece of the body."""
        self._pieces.write(piece)
        self._size += len(piece)
        self.is_whole = self.is_whole or is_last
        self._update()

    def end(self) -> None:
        """Mark the body as complete."""
        self.is_whole = True
        self._update()

    async def whole(self, hold: MemoryReservation) -> bytes:
        """Wait for the whole body; call it once. Raises RequestTooLarge or QueueFull."""
        self._hold = hold
        self.wanted.set_result(None)
        self._update()
        await self._whole
        return self._pieces.getvalue()

    def take(self) -> bytes:
        """Remove and return the pieces so far, and release their memory."""
        taken, self._pieces = self._pieces.getvalue(), io.BytesIO()
        if self._hold is not None:
            self._hold.give(self._held)
            self._held = 0
        return taken

    def _update(self) -> None:
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
