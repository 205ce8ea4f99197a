"""Admits requests to the slots of their model, in the order that its queue decides.

`Admission` holds all models' queues and the bound on all requests. Adapters and aliases share the
queue of their base model, as they share its pods. A request for a model without a ready endpoint
does not wait: routing reports the reason. `Line` applies the decisions of one queue to the tasks
that wait in it; it decides nothing itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, Protocol

from autoglm.common.errors import AutoGLMError, QueueFull, ShuttingDown
from autoglm.gateway.admission.capacity import Sizing
from autoglm.gateway.admission.lane import State, Waiter
from autoglm.gateway.admission.queue import Bounds, Queue, Verdict
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import ModelView
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord

# The interval between updates of the capacity; longer with many endpoints, to bound its cost.
_UPDATE_SECONDS, _UPDATE_SECONDS_PER_ENDPOINT = 0.05, 1e-4


class Policy(Protocol):
    """A tenant's share and priority."""

    @property
    def weight(self) -> float: ...

    @property
    def priority(self) -> int:
        """Lower is admitted first."""


@dataclass(frozen=True, slots=True)
class Equal:
    """The policy of tenants without a tenants file."""

    weight: float = 1.0
    priority: int = 0


_EQUAL = Equal()


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """`requests` bounds the requests admitted or waiting, of all models; `queue` those of each."""

    requests: int = 4096
    queue: Bounds = Bounds()
    spare: int = 4
    """The requests that may wait in each pod."""


class Slot(NamedTuple):
    """One admitted request; without a line if its model has no endpoint, which routing reports."""

    line: Line | None = None
    waiter: Waiter | None = None


_NO_SLOT = Slot()


class Admission:
    """The queues of all models. `in_flight` counts the requests admitted or waiting."""

    def __init__(
        self,
        pool: Pool,
        settings: AdmissionSettings,
        metrics: Metrics,
        policy_of: Callable[[str], Policy] = lambda tenant: _EQUAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._policy_of = policy_of
        self._clock = clock
        self._lines: dict[str, Line] = {}
        self.in_flight = 0
        self.idle = asyncio.Event()
        """Set while no request is in flight; draining waits for it."""
        self.idle.set()

    @property
    def waiting(self) -> int:
        """Return the number of requests waiting in all queues."""
        return sum(line.queue.waiting for line in self._lines.values())

    async def enter(self, request: GatewayRequest, record: RequestRecord) -> Slot:
        """Wait for a slot, and return it. It is held until `leave`, after the stream has ended.

        Raises QueueFull, DeadlineExceeded, NoReadyEndpoint or ShuttingDown if it is rejected.
        """
        if self.in_flight >= self._settings.requests:
            raise QueueFull(
                f"the gateway is serving {self.in_flight} requests, its limit; try again later",
                retry_after=self.retry_after(),
            )
        if not self.in_flight:
            self.idle.clear()
        self.in_flight += 1
        slot = _NO_SLOT
        try:
            models = self._pool.snapshot.models
            name = request.model
            model = models.get(name)
            if model is not None and (model.grpc or model.http):
                line, waiter = self._line(queue_of(name, models)), self._waiter(request)
                slot = Slot(line, waiter)
                record.queued = await line.enter(waiter)
        except BaseException:
            self.leave(slot, record)
            raise
        return slot

    def leave(self, slot: Slot, record: RequestRecord) -> None:
        """Release a slot at the end of its request."""
        line, waiter = slot
        if line is not None and waiter is not None:
            line.leave(waiter, record.usage.total if record.usage else None)
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle.set()

    def reject_waiting(self) -> None:
        """Reject all waiting requests before shutdown, so that clients retry elsewhere."""
        for line in self._lines.values():
            line.reject_all(
                ShuttingDown("the gateway is shutting down; try again", retry_after=1.0)
            )

    def retry_after(self) -> float:
        """Return the seconds until the first of the queues is empty."""
        pauses = [line.queue.retry_after() for line in self._lines.values()]
        return min(pauses, default=1.0)

    def _line(self, model: str) -> Line:
        line = self._lines.get(model)
        if line is None:
            models = self._pool.snapshot.models
            known = {queue_of(name, models) for name in models}
            for name in [name for name, line in self._lines.items() if line.is_idle]:
                if name not in known:
                    self._metrics.forget_queue(name)
                    del self._lines[name]
            views = partial(self._views, model)
            line = Line(model, self._settings, views, self._metrics, self._clock)
            self._lines[model] = line
        return line

    def _views(self, model: str) -> tuple[EndpointView, ...]:
        found = self._pool.snapshot.models.get(model)
        if found is None:
            return ()
        return tuple({view.url: view for view in (*found.grpc, *found.http)}.values())

    def _waiter(self, request: GatewayRequest) -> Waiter:
        assert request.info is not None, "validation rejects requests without info"
        policy = self._policy_of(request.principal.tenant)
        return Waiter(
            request.principal.tenant,
            tokens=max(1, request.info.estimated_tokens),
            # Envoy may hold the body; then the size comes from the routing hint.
            size=len(request.payload) or request.info.size,
            deadline=request.deadline,
            # A request can lower its tenant's priority, not raise it.
            priority=max(policy.priority, request.info.priority),
            weight=policy.weight,
        )


def queue_of(name: str, models: Mapping[str, ModelView]) -> str:
    """Return the name of the queue for the model `name`: the first of the names sharing its pods.

    Names of the resource that belong to an older resource are skipped.
    """
    model = models[name]
    if model.resource is not None:
        for own in model.resource.names:
            other = models.get(own)
            if other and other.resource and other.resource.key == model.resource.key:
                return own
        return name
    base = model.model.parent or model.model.name
    return base if base in models else name


class Line:
    """One model's queue and its waiting tasks. `views` returns the model's ready endpoints.

    Each waiting task has a future. While any task waits, a timer updates the capacity and expires
    requests; otherwise arriving requests do.
    """

    def __init__(
        self,
        model: str,
        settings: AdmissionSettings,
        views: Callable[[], tuple[EndpointView, ...]],
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
            self._update(started)
            verdicts = self.queue.arrive(waiter, started)
            # Mostly a slot is free and the verdict is about this request alone.
            is_free = waiter.state is State.ADMITTED and len(verdicts) == 1
            error = None if is_free else await self._wait(waiter, verdicts)
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
        if verdicts := self.queue.leave(waiter, self._clock(), used):
            self._apply(verdicts)

    def reject_all(self, error: AutoGLMError) -> None:
        """Reject all waiting requests with the error."""
        self._apply(self.queue.reject_all(error, self._clock()))

    async def _wait(self, waiter: Waiter, verdicts: list[Verdict]) -> AutoGLMError | None:
        """Wait for the verdict on the request, unless it is among these; return its error."""
        for verdict in self._apply(verdicts):
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
