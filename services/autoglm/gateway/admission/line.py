"""Applies the decisions of one model's queue to the tasks that wait in it.

Each waiting task has a future. While any task waits, a timer updates the capacity and expires
requests; otherwise arriving requests do. Decides nothing itself.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from autoglm.common.errors import AutoGLMError
from autoglm.gateway.admission.capacity import Sizing
from autoglm.gateway.admission.lane import Waiter
from autoglm.gateway.admission.queue import Bounds, Queue, Verdict
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.request.metrics import Metrics

# The interval between updates of the capacity; longer with many endpoints, to bound its cost.
_UPDATE_SECONDS, _UPDATE_SECONDS_PER_ENDPOINT = 0.05, 1e-4

Views = Callable[[], tuple[EndpointView, ...]]


@dataclass(frozen=True, slots=True)
class LineSettings:
    """Bounds of one model's queue. `spare` requests may wait in each pod."""

    queue: Bounds = Bounds()
    spare: int = 4


class Line:
    """One model's queue and its waiting tasks. `views` returns the model's ready endpoints."""

    def __init__(
        self,
        model: str,
        settings: LineSettings,
        views: Views,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.model = model
        self.queue = Queue(model, settings.queue)
        self._sizing = Sizing(settings.spare)
        self._views = views
        self._metrics = metrics
        self._queue_seconds = cache(partial(metrics.queue_seconds.labels, model))
        self._clock = clock
        self._update_seconds = _UPDATE_SECONDS
        self._updated = -math.inf
        self._waiting: dict[Waiter, asyncio.Future[AutoGLMError | None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        metrics.follow_queue(model, self.queue)

    @property
    def is_idle(self) -> bool:
        """Return whether no request is admitted or waiting."""
        return not self.queue.admitted and not self.queue.waiting

    async def enter(self, waiter: Waiter) -> float:
        """Wait until the request is admitted; return the seconds waited.

        Raises the error with which the queue rejects it.
        """
        started, outcome = self._clock(), "cancelled"
        try:
            error = await self._verdict(waiter, started)
            outcome = "admitted" if error is None else "rejected"
            if error is not None:
                self._metrics.rejected.labels(self.model, error.reason).inc()
                raise error
        finally:
            seconds = self._clock() - started
            self._queue_seconds(outcome).observe(seconds)
        return seconds

    def leave(self, waiter: Waiter, used: float | None) -> None:
        """Release the request's slot or its entry in the queue; a second call has no effect."""
        now = self._clock()
        self._apply(self.queue.leave(waiter, now, used))

    def reject_all(self, error: AutoGLMError) -> None:
        """Reject all waiting requests with the error."""
        self._apply(self.queue.reject_all(error, self._clock()))

    def close(self) -> None:
        """Remove the gauges of an idle queue that is used no more."""
        self._metrics.forget_queue(self.model)

    async def _verdict(self, waiter: Waiter, now: float) -> AutoGLMError | None:
        self._update(now)
        for verdict in self._apply(self.queue.arrive(waiter, now)):
            if verdict.waiter is waiter:
                return verdict.error
        future: asyncio.Future[AutoGLMError | None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = future
        self._start_timer()
        try:
            return await future
        finally:
            del self._waiting[waiter]

    def _apply(self, verdicts: list[Verdict]) -> list[Verdict]:
        """Wake the tasks of the verdicts; return the verdicts without a waiting task."""
        others = []
        for verdict in verdicts:
            future = self._waiting.get(verdict.waiter)
            if future is None:
                others.append(verdict)
            elif not future.done():
                future.set_result(verdict.error)
        return others

    def _update(self, now: float) -> None:
        if now - self._updated < self._update_seconds:
            return
        views, self._updated = self._views(), now
        self._update_seconds = max(_UPDATE_SECONDS, len(views) * _UPDATE_SECONDS_PER_ENDPOINT)
        capacity = self._sizing.update(views, self.queue.is_token_bound, now)
        self._apply(self.queue.resize(capacity, now))

    def _start_timer(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._update_seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, now = None, self._clock()
        self._update(now)
        self._apply(self.queue.expire(now))
        if self.queue.waiting:
            self._start_timer()
