"""Ends writes in progress before another operator may lead; `election` has the time.

A write may take as long as the API server needs while the Lease is renewed: given up earlier, it
would only be sent again while the first one is still carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NotLeading(Exception):
    """Another operator may be writing."""


class Fence:
    """Times are those of the event loop."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._open: set[asyncio.Timeout] = set()

    def extend(self, seconds: float) -> None:
        """Let writes go on for so many seconds from now; 0 ends them now."""
        self._until = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            if not timeout.expired():
                timeout.reschedule(self._until)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Run a write inside. Raises NotLeading when its time is over."""
        timeout = asyncio.timeout_at(self._until)
        try:
            async with timeout:
                self._open.add(timeout)
                try:
                    yield
                finally:
                    self._open.discard(timeout)
        except TimeoutError:
            if timeout.expired():
                raise NotLeading("the Lease was not renewed in time") from None
            raise
