"""Timeouts of a stream: a resource's `spec.routing.timeouts`, else the gateway's, and their timer.

A request ends by its deadline, which `bounded` may bring forward. The timeouts for the first token
and between chunks apply to streams whose chunks pass through this process: no other response shows
either. `StallTimer` applies them for one attempt; what is late is retried on another endpoint.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from autoglm.api.spec.traffic import Timeouts
from autoglm.common.errors import DeadlineExceeded
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled
from autoglm.gateway.request.request import GatewayRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """How long one endpoint may keep a stream waiting, in seconds; None is no limit."""

    first_token_seconds: float | None = None
    chunk_seconds: float | None = None


UNLIMITED = StreamTimeouts()


def bounded(request: GatewayRequest, timeouts: Timeouts) -> GatewayRequest:
    """Return the request with the earlier of its own deadline and the resource's."""
    total = timeouts.total_seconds
    if total is None or request.deadline <= request.started + total:
        return request
    return replace(request, deadline=request.started + total)


def stream_timeouts(
    request: GatewayRequest, timeouts: Timeouts, default: StreamTimeouts
) -> StreamTimeouts:
    """Return the timeouts that apply to the request, by its resource or else the default."""
    if request.info is None or not request.info.streaming or not request.exchange.has_chunks:
        return UNLIMITED
    first, chunk = timeouts.first_token_seconds, timeouts.chunk_seconds
    if first is None and chunk is None:
        return default
    return StreamTimeouts(
        default.first_token_seconds if first is None else first,
        default.chunk_seconds if chunk is None else chunk,
    )


def no_first_token(request: GatewayRequest, seconds: float) -> RetryElsewhere:
    """Return the error for a first token that is late."""
    why = f"no first token of {request.model!r} within {seconds:g} s"
    late = DeadlineExceeded(f"{why}; send the request again, or raise the limit")
    return RetryElsewhere(late, elsewhere_only=True)


def no_chunk(request: GatewayRequest, seconds: float) -> Stalled:
    """Return the error for a stream that has stalled."""
    why = f"{request.model!r} sent no chunk for {seconds:g} s, so the response is incomplete"
    return Stalled(DeadlineExceeded(f"{why}; send the request again, or raise the limit"))


class StallTimer:
    """Waits for one endpoint, with a timeout.

    A wait ends when nothing has arrived for the seconds of `limit`, or when `cut` is called; after
    a cut every wait raises its error. The time that a slow client takes does not count. Costs one
    timer a stream and an attribute write a chunk.
    """

    __slots__ = ("_cut", "_loop", "_made", "_seconds", "_sent", "_since", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._cut: Exception | None = None
        self._sent = False
        """Whether `cut` has cancelled the task, and `wait` has not yet taken that back."""
        self._since = self._seconds = 0.0
        """`_since` is when something arrived last; infinite while the client is slow."""
        self._timer: asyncio.TimerHandle | None = None
        self._made: Callable[[], Exception] = RuntimeError

    def limit(self, seconds: float | None, made: Callable[[], Exception]) -> None:
        """Set the longest wait (None: no limit); a longer one is cut with the error of `made`."""
        self.release()
        if seconds is not None:
            self._seconds, self._made = seconds, made
            self._since = self._loop.time()
            self._timer = self._loop.call_later(seconds, self._check)

    @property
    def has_limit(self) -> bool:
        return self._timer is not None

    def release(self) -> None:
        """Remove the limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def restart(self) -> None:
        """Note that something has arrived."""
        self._since = self._loop.time()

    async def paused(self, waiting: Awaitable[None]) -> None:
        """Wait for the client, in time that does not count."""
        self._since = math.inf
        await waiting
        self._since = self._loop.time()

    async def wait(self, begin: Callable[[], Awaitable[T]]) -> T:
        """Return what `begin` returns. Raises the error of a cut."""
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
            # What arrived together with the cut is not lost.
            self._took_back(task, before)
        return found

    def cut(self, error: Exception) -> None:
        """End the wait, or the next one, with this error."""
        if self._cut is None:
            self._cut = error
            if self._task is not None:
                self._sent = True
                self._task.cancel()

    def _took_back(self, task: asyncio.Task[object], before: int) -> bool:
        """Uncancel the task. Returns whether only `cut` had cancelled it."""
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
            left = self._seconds - max(waited, 0.0)
            self._timer = self._loop.call_later(left, self._check)
