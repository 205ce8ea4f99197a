"""Cancels writes in progress before another operator may lead; `election` has the durations.

A write may take as long as the API server needs while the Lease is renewed: cancelled earlier, it
would be retried while the API server still carries out the first one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NotLeading(Exception):
    """This operator may not write, because another one may hold the Lease."""


class Fence:
    """Cancels guarded writes at a time that can be extended. Uses the event loop's clock."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._open: set[asyncio.Timeout] = set()

    def extend(self, seconds: float) -> None:
        """Allow writes for `seconds` from now; 0 cancels them now."""
        self._until = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            if not timeout.expired():
                timeout.reschedule(self._until)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Guard the write inside. Raises NotLeading when the time has passed."""
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
