"""Runs as many concurrent writes as `write_limit` allows, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from autoglm.kube.errors import Refused, TimedOut
from autoglm.kube.write_limit import WriteLimit

_OVERLOADED = frozenset({429, 503, 504})


class WriteSlots:
    """Slots for writes, first come first served. Calls `report` with each new limit."""

    def __init__(self, most: int, report: Callable[[float], None]) -> None:
        self._limit = WriteLimit(most)
        self._report = report
        self._waiting: deque[asyncio.Future[None]] = deque()
        report(self._limit.limit)

    @asynccontextmanager
    async def slot(self, kind: str) -> AsyncIterator[None]:
        """Acquire a slot for `kind`, and adapt the limit to the outcome of the write inside."""
        await self._acquire()
        loop, limit = asyncio.get_running_loop(), self._limit
        began = loop.time()
        try:
            yield
        except TimedOut:
            limit.overloaded(began, loop.time())
            raise
        except Refused as error:
            if error.status in _OVERLOADED:
                limit.overloaded(began, loop.time())
            else:
                limit.succeeded(kind, began, loop.time())
            raise
        except BaseException:
            limit.abandoned()
            raise
        else:
            limit.succeeded(kind, began, loop.time())
        finally:
            self._report(limit.limit)
            self._wake()

    async def _acquire(self) -> None:
        if self._limit.has_room and not self._waiting:
            self._limit.began()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The slot was acquired just as the wait was cancelled.
                self._limit.abandoned()
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self._limit.has_room:
            turn = self._waiting.popleft()
            if not turn.done():
                self._limit.began()
                turn.set_result(None)
