"""Ends streams whose clients do not read: they would keep a slot without end.

While a client does not read, no further chunk is read from the pod, so that memory is bounded by
the transport's buffers; this bounds the time. Used by the gRPC edge around each write;
costs two assignments a chunk and one timer a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from autoglm.common.errors import Cancelled

SLOW_READER_SECONDS = 60.0
_CHECKS = 4


class SlowReader:
    """A context around a stream, entered by the task that writes it.

    That task is cancelled once a chunk has been in writing for `seconds`; within the context this
    becomes `Cancelled`. `on_stall` is called before.
    """

    def __init__(self, seconds: float, on_stall: Callable[[], None] = lambda: None) -> None:
        self._seconds = seconds
        self._on_stall = on_stall
        self._is_stalled = False
        self._writing_since: float | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "streams are written by tasks"
        self._task, self._loop = task, asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._seconds / _CHECKS, self._check)
        return self

    def begin(self) -> None:
        """Start the time of a write."""
        self._writing_since = self._loop.time()

    def end(self) -> None:
        """Stop it: the chunk was written."""
        self._writing_since = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._is_stalled and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise Cancelled(f"the client read nothing for {self._seconds:g} s") from error

    def _check(self) -> None:
        since, now = self._writing_since, self._loop.time()
        if since is not None and now - since >= self._seconds:
            self._is_stalled = True
            self._on_stall()
            self._task.cancel()
            return
        due = self._seconds / _CHECKS if since is None else since + self._seconds - now
        self._timer = self._loop.call_later(max(due, self._seconds / 20), self._check)
