"""Waits for the chunks of one endpoint with a timeout. Used by the proxy's attempts.

A wait ends after a stall of the given seconds, or when `cut` is called. Only waits count, never the
time that a slow client takes. Costs one timer a stream, and a few attribute writes a chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class StallTimer:
    """The timer of one attempt. After a cut every wait raises the error of the cut."""

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
        """Sets the longest wait (None: no limit); a longer one is cut with the error of `made`."""
        self.release()
        if seconds is not None:
            self._seconds, self._made = seconds, made
            self._since = self._loop.time()
            self._timer = self._loop.call_later(seconds, self._check)

    def release(self) -> None:
        """Removes the limit."""
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
            # A chunk that arrived together with the cut is not lost.
            self._took_back(task, before)
        return found

    def cut(self, error: Exception) -> None:
        """Ends the wait, or the next one, with this error."""
        if self._cut is None:
            self._cut = error
            if self._task is not None:
                self._sent = True
                self._task.cancel()

    def _took_back(self, task: asyncio.Task[object], before: int) -> bool:
        """Uncancels the task. Returns whether only `cut` had cancelled it."""
        self._task = None
        if not self._sent:
            return False
        self._sent = False
        return task.uncancel() <= before

    def _check(self) -> None:
        waited = self._loop.time() - self._since if self._task is not None else 0.0
        # Loops fire timers up to a clock tick early.
        if waited >= self._seconds - 0.001:
            self._timer = None
            self.cut(self._made())
        else:
            self._timer = self._loop.call_later(self._seconds - waited, self._check)
