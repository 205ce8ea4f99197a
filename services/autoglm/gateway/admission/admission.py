"""Lets requests on to the pods in their turn. Used by the admit layer.

Decides what concerns all models together: the bound on all requests, and which queue a request
belongs to: its base model's, since adapters and aliases share its pods. What is decided within a
queue is `queue`'s. A call for a model without a ready endpoint does not wait: routing says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from autoglm.common.errors import QueueFull, ShuttingDown
from autoglm.gateway.admission.lane import Waiter
from autoglm.gateway.admission.line import Line, LineSettings
from autoglm.gateway.endpoints.deployments import Key
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import ModelView
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord


class Policy(Protocol):
    """What admission wants to know of a tenant."""

    @property
    def weight(self) -> float: ...

    @property
    def priority(self) -> int:
        """Lower goes first."""


@dataclass(frozen=True, slots=True)
class Equal:
    """The policy where none is known."""

    weight: float = 1.0
    priority: int = 0


_EQUAL = Equal()


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """`requests` bounds all that are admitted or wait."""

    requests: int = 4096
    line: LineSettings = LineSettings()


class Admission:
    """All queues. `in_flight` counts what is admitted or waits."""

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
        """Set while nothing is in flight; draining waits for it."""
        self.idle.set()

    @property
    def waiting(self) -> int:
        return sum(line.queue.waiting for line in self._lines.values())

    @asynccontextmanager
    async def place(self, call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[None]:
        """Held as long as the context is open, which is until the stream has ended.

        Raises QueueFull, DeadlineExceeded, NoReadyEndpoint or ShuttingDown instead.
        """
        self._begin()
        try:
            models = self._pool.snapshot.models
            model = models.get(call.model)
            if model is None or not (model.grpc or model.http):
                yield
                return
            line, waiter = self._line(queue_of(call.model, models)), self._waiter(call)
            try:
                notes.queued = await line.enter(waiter)
                yield
            finally:
                line.leave(waiter, notes.usage.total if notes.usage else None)
        finally:
            self._end()

    def refuse_waiting(self) -> None:
        """The process is about to end: those who wait may still go elsewhere."""
        for line in self._lines.values():
            line.refuse_all(ShuttingDown("the gateway is going away; try again", retry_after=1.0))

    def retry_after(self) -> float:
        """Seconds until the queue that drains soonest has drained."""
        pauses = [line.queue.retry_after() for line in self._lines.values()]
        return min(pauses, default=1.0)

    def _begin(self) -> None:
        if self.in_flight >= self._settings.requests:
            raise QueueFull(
                f"the gateway is serving {self.in_flight} requests, its limit; try again later",
                retry_after=self.retry_after(),
            )
        self.in_flight += 1
        self.idle.clear()

    def _end(self) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle.set()

    def _line(self, model: str) -> Line:
        line = self._lines.get(model)
        if line is None:
            self._drop_unknown()
            settings, views = self._settings.line, partial(self._views, model)
            line = Line(model, settings, views, self._metrics, self._clock)
            self._lines[model] = line
        return line

    def _drop_unknown(self) -> None:
        models = self._pool.snapshot.models
        known = {queue_of(name, models) for name in models}
        gone = [name for name, line in self._lines.items() if name not in known and line.is_idle]
        for name in gone:
            self._lines.pop(name).close()

    def _views(self, model: str) -> tuple[EndpointView, ...]:
        found = self._pool.snapshot.models.get(model)
        if found is None:
            return ()
        return tuple({view.url: view for view in (*found.grpc, *found.http)}.values())

    def _waiter(self, call: GatewayRequest) -> Waiter:
        assert call.info is not None, "the validate layer lets nothing pass that could not be read"
        policy = self._policy_of(call.principal.tenant)
        return Waiter(
            call.principal.tenant,
            tokens=max(1, call.info.estimated_tokens),
            # Of a body that Envoy keeps the prompt is known.
            size=len(call.payload) or call.info.size,
            deadline=call.deadline,
            # A request may ask to go later than its tenant's others, not earlier.
            priority=max(policy.priority, call.info.priority),
            weight=policy.weight,
        )


def queue_of(name: str, models: Mapping[str, ModelView]) -> str:
    """The name whose queue takes the calls for `name`: the first one of those that share its pods.

    Of a resource's names only those count that no older resource has.
    """
    model = models[name]
    if model.resource is not None:
        key = model.resource.key
        own = (n for n in model.resource.names if (m := models.get(n)) and _is_of(m, key))
        return next(own, name)
    base = model.model.parent or model.model.name
    return base if base in models else name


def _is_of(model: ModelView, key: Key) -> bool:
    return model.resource is not None and model.resource.key == key
