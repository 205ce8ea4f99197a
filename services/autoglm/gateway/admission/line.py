"""One model's queue and the tasks that wait in it: carries out what the queue decides.

Each waiting task has a future. While any waits, a timer looks at the pods' capacity and at the
time; otherwise arriving requests do. Decides nothing itself.
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

# How often the pods' limits are looked at under load: often, but never for most of the time.
_LOOK_SECONDS, _LOOK_SECONDS_PER_ENDPOINT = 0.05, 1e-4

Views = Callable[[], tuple[EndpointView, ...]]


@dataclass(frozen=True, slots=True)
class LineSettings:
    """`spare` requests may wait in each pod."""

    queue: Bounds = Bounds()
    spare: int = 4


class Line:
    """`views` are the model's ready endpoints."""

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
        self._look_seconds = _LOOK_SECONDS
        self._looked = -math.inf
        self._waiting: dict[Waiter, asyncio.Future[AutoGLMError | None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        metrics.follow_queue(model, self.queue)

    @property
    def is_idle(self) -> bool:
        return not self.queue.admitted and not self.queue.waiting

    async def enter(self, waiter: Waiter) -> float:
        """The seconds waited, once it may go on to the pods. Raises what the queue decides."""
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
        """The request has ended. Whatever happened before, once is enough."""
        now = self._clock()
        self._carry_out(self.queue.leave(waiter, now, used))

    def refuse_all(self, error: AutoGLMError) -> None:
        self._carry_out(self.queue.refuse_all(error, self._clock()))

    def close(self) -> None:
        """Nobody is in it, and nobody will be."""
        self._metrics.forget_queue(self.model)

    async def _verdict(self, waiter: Waiter, now: float) -> AutoGLMError | None:
        self._look(now)
        for verdict in self._carry_out(self.queue.arrive(waiter, now)):
            if verdict.waiter is waiter:
                return verdict.error
        future: asyncio.Future[AutoGLMError | None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = future
        self._keep_looking()
        try:
            return await future
        finally:
            del self._waiting[waiter]

    def _carry_out(self, verdicts: list[Verdict]) -> list[Verdict]:
        """Wakes whom the verdicts are about; those are left that concern nobody who sleeps."""
        others = []
        for verdict in verdicts:
            future = self._waiting.get(verdict.waiter)
            if future is None:
                others.append(verdict)
            elif not future.done():
                future.set_result(verdict.error)
        return others

    def _look(self, now: float) -> None:
        if now - self._looked < self._look_seconds:
            return
        views, self._looked = self._views(), now
        self._look_seconds = max(_LOOK_SECONDS, len(views) * _LOOK_SECONDS_PER_ENDPOINT)
        capacity = self._sizing.look(views, self.queue.is_token_bound, now)
        self._carry_out(self.queue.resize(capacity, now))

    def _keep_looking(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._look_seconds, self._look_again)

    def _look_again(self) -> None:
        self._timer, now = None, self._clock()
        self._look(now)
        self._carry_out(self.queue.expire(now))
        if self.queue.waiting:
            self._keep_looking()
