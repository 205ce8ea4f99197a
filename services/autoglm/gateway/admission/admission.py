"""Admits requests to the slots of their model, in the order that its queue decides.

Holds what concerns all models together: the bound on all requests, and the queue of each request.
Adapters and aliases share the queue of their base model, as they share its pods. A request for a
model without a ready endpoint does not wait: routing reports the reason.
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
    """`requests` bounds the requests admitted or waiting, of all models."""

    requests: int = 4096
    line: LineSettings = LineSettings()


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

    @asynccontextmanager
    async def slot(self, call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[None]:
        """Wait for a slot and hold it until the context exits, after the stream has ended.

        Raises QueueFull, DeadlineExceeded, NoReadyEndpoint or ShuttingDown if it is rejected.
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
        assert call.info is not None, "validation rejects requests without info"
        policy = self._policy_of(call.principal.tenant)
        return Waiter(
            call.principal.tenant,
            tokens=max(1, call.info.estimated_tokens),
            # Envoy may hold the body; then the size comes from the routing hint.
            size=len(call.payload) or call.info.size,
            deadline=call.deadline,
            # A request can lower its tenant's priority, not raise it.
            priority=max(policy.priority, call.info.priority),
            weight=policy.weight,
        )


def queue_of(name: str, models: Mapping[str, ModelView]) -> str:
    """Return the name of the queue for the model `name`: the first of the names sharing its pods.

    Names of the resource that belong to an older resource are skipped.
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
