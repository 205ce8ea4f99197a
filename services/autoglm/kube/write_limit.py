"""Limits concurrent writes to the API server to what it can carry, first come first served.

Additive increase, multiplicative decrease. Some writes become slow because they contend with each
other (allocation of Service addresses, admission webhooks, a small etcd); more concurrency only
makes each of them slower. A write is compared with the shortest recent duration of the same kind,
so that a distant or slow server is not mistaken for a congested one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from autoglm.kube.transport import Refused, TimedOut

FIRST: Final = 4
"""Concurrent writes at the start, which measure the usual duration."""
_SLOW_SECONDS = 1.0
_SLOW_FACTOR = 3.0
_AFTER_SLOW = 0.7
_AFTER_OVERLOAD = 0.5
_WINDOW_SECONDS = 300.0
_OVERLOADED = frozenset({429, 503, 504})


@dataclass(slots=True)
class Shortest:
    """The shortest duration in the last one or two windows."""

    since: float
    now: float = float("inf")
    before: float = float("inf")

    def add(self, seconds: float, at: float) -> float:
        """Add a duration in seconds; return the shortest one."""
        if at - self.since >= _WINDOW_SECONDS:
            self.before, self.now, self.since = self.now, float("inf"), at
        self.now = min(self.now, seconds)
        return min(self.now, self.before)


@dataclass(slots=True)
class WriteLimit:
    """The current limit, between 1 and `most`, and the writes in flight. Pure."""

    most: int
    limit: float = FIRST
    in_flight: int = 0
    _shortest: dict[str, Shortest] = field(default_factory=dict)
    _cut_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.limit = min(self.limit, self.most)

    @property
    def has_room(self) -> bool:
        return self.in_flight < int(self.limit)

    def began(self) -> None:
        self.in_flight += 1

    def abandoned(self) -> None:
        """Record a write that this process cancelled; it is no measure of the server."""
        self.in_flight -= 1

    def succeeded(self, kind: str, began: float, now: float) -> None:
        """Record a successful write of this kind. Times are in seconds."""
        # A limit that is not used has not been tested.
        was_used = 2 * self.in_flight >= int(self.limit)
        self.in_flight -= 1
        seconds = now - began
        usual = self._shortest.setdefault(kind, Shortest(now)).add(seconds, now)
        if seconds > max(_SLOW_SECONDS, _SLOW_FACTOR * usual):
            self._cut(_AFTER_SLOW, began, now)
        elif was_used:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def overloaded(self, began: float, now: float) -> None:
        """Record a write that the server rejected as overloaded, or that timed out."""
        self.in_flight -= 1
        self._cut(_AFTER_OVERLOAD, began, now)

    def _cut(self, factor: float, began: float, now: float) -> None:
        # A write that began before the last cut is no measure of the limit since.
        if began >= self._cut_at:
            self.limit = max(1.0, self.limit * factor)
            self._cut_at = now


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
