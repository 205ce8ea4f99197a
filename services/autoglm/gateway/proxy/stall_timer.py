"""Waits for one endpoint, no longer than is sensible. Used by the relay's attempts.

Decides when a wait is over: after a silence of so many seconds, or when somebody who knows better
cuts it. Only waits count, never the time that a slow client takes. One timer a stream, and a few
attribute writes a chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class StallTimer:
    """Of one attempt. After a cut every wait raises what it was cut with."""

    __slots__ = ("_cut", "_loop", "_made", "_seconds", "_sent", "_since", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._cut: Exception | None = None
        self._sent = False
        self._since = self._seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._made: Callable[[], Exception] = RuntimeError

    def limit(self, seconds: float | None, made: Callable[[], Exception]) -> None:
        """From now on a wait may take so long, or for ever; then it is cut with what is `made`."""
        self.release()
        if seconds is not None:
            self._seconds, self._made = seconds, made
            self._since = self._loop.time()
            self._timer = self._loop.call_later(seconds, self._look)

    def release(self) -> None:
        """No limit any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def wait(self, begin: Callable[[], Awaitable[T]]) -> T:
        if self._cut is not None:
            raise self._cut
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        self._task, self._since = task, self._loop.time()
        try:
            found = await begin()
        except asyncio.CancelledError as cancelled:
            if self._took_back(task, before) and self._cut is not None:
                raise self._cut from cancelled
            raise
        except BaseException:
            self._took_back(task, before)
            raise
        self._task = None
        if self._sent:
            # What came at the very moment of the cut is not lost.
            self._took_back(task, before)
        return found

    def cut(self, error: Exception) -> None:
        """End the wait, or the next one, with this."""
        if self._cut is None:
            self._cut = error
            if self._task is not None:
                self._sent = True
                self._task.cancel()

    def _took_back(self, task: asyncio.Task[object], before: int) -> bool:
        """Whether the cancellation that ended a wait was ours alone."""
        self._task = None
        if not self._sent:
            return False
        self._sent = False
        return task.uncancel() <= before

    def _look(self) -> None:
        waited = self._loop.time() - self._since if self._task is not None else 0.0
        # Loops fire timers up to a clock tick early.
        if waited >= self._seconds - 0.001:
            self._timer = None
            self.cut(self._made())
        else:
            self._timer = self._loop.call_later(self._seconds - waited, self._look)
