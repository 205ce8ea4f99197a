"""Orders reconciles in a work queue, runs them concurrently, and requeues by their results.

A resource is never reconciled twice at the same time; changes during a reconcile cause one more. A
failing resource backs off by itself, without delaying others.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

from autoglm.common.pacing import Backoff
from autoglm.kube.kinds import Key
from autoglm.kube.transport import NotLeading, Refused, Unreachable
from autoglm.operator.metrics import Metrics
from autoglm.operator.reconcile import ChildrenRejected, ReconcileResult

K = TypeVar("K", bound=Hashable)
_log = logging.getLogger("autoglm.operator")


@dataclass(slots=True)
class Queue(Generic[K]):
    """Keys with the times at which they are due, in seconds. Pure: time and randomness are passed
    in."""

    rng: Random
    backoff: Backoff = Backoff()
    _due: dict[K, float] = field(default_factory=dict)
    _heap: list[tuple[float, int, K]] = field(default_factory=list)
    _running: set[K] = field(default_factory=set)
    _failures: dict[K, int] = field(default_factory=dict)
    _retry_at: dict[K, float] = field(default_factory=dict)
    _urgent: set[K] = field(default_factory=set)
    _count: int = 0

    def __len__(self) -> int:
        """Return the number of keys that wait for a worker or until they are due."""
        return len(self._due)

    @property
    def running(self) -> int:
        """Return the number of keys that are being reconciled."""
        return len(self._running)

    @property
    def failing(self) -> int:
        """Return the number of keys whose last reconcile failed."""
        return len(self._failures)

    def add(self, key: K, now: float, after: float = 0.0, *, urgent: bool = False) -> None:
        """Enqueue `key` for `after` seconds from now, or earlier if it is due earlier already.

        A failing key keeps its back-off unless `urgent`: its user has changed it.
        """
        due = now + after
        if urgent:
            self._urgent.add(key)
        else:
            due = max(due, self._retry_at.get(key, due))
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._push(key, due)

    def take(self, now: float) -> K | None:
        """Return the key that is due longest, and mark it as running; None if none is due."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            # Entries that an earlier one has replaced stay in the heap and are ignored.
            if self._due.get(key) == due and key not in self._running:
                del self._due[key]
                self._urgent.discard(key)
                self._running.add(key)
                return key
        return None

    def done(self, key: K, now: float, requeue_after: float | None = None) -> None:
        """Record success, and requeue the key if `requeue_after` is given, in seconds."""
        self._failures.pop(key, None)
        self._retry_at.pop(key, None)
        self._finish(key)
        if requeue_after is not None:
            self.add(key, now, requeue_after)

    def failed(self, key: K, now: float, at_least: float = 0.0) -> float:
        """Requeue the key after its back-off; return that in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, self.backoff.delay(failures, self.rng))
        self._retry_at[key] = now + delay
        if key not in self._urgent:
            self._due.pop(key, None)
        self._finish(key)
        self.add(key, now, delay)
        return delay

    def next_due(self) -> float | None:
        """Return when the next key is due; None if none is before `add` or `done`."""
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) == due and key not in self._running:
                return due
            heapq.heappop(self._heap)
        return None

    def _finish(self, key: K) -> None:
        self._running.discard(key)
        if (due := self._due.get(key)) is not None:
            self._push(key, due)

    def _push(self, key: K, due: float) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))


@dataclass(slots=True)
class Dispatcher:
    """Runs on one event loop, whose clock is the queue's."""

    queue: Queue[Key]
    reconcile: Callable[[Key], Awaitable[ReconcileResult]]
    metrics: Metrics
    limit: int
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, key: Key, after: float = 0.0, *, urgent: bool = False) -> None:
        self.queue.add(key, asyncio.get_running_loop().time(), after, urgent=urgent)
        self._wake.set()

    async def run(self) -> None:
        """Run until cancelled, which cancels running reconciles."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                while self.queue.running < self.limit:
                    key = self.queue.take(loop.time())
                    if key is None:
                        break
                    tasks.create_task(self._reconcile(key))
                self.metrics.queue.set(len(self.queue))
                self.metrics.failing.set(self.queue.failing)
                # Until a key was added, a reconcile has ended, or a key is due.
                due = self.queue.next_due() if self.queue.running < self.limit else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()

    async def _reconcile(self, key: Key) -> None:
        loop, result = asyncio.get_running_loop(), "failed"
        try:
            ended = await self.reconcile(key)
            result = ended.result
            self.queue.done(key, loop.time(), ended.requeue_after)
        except NotLeading:
            # The next leader reconciles every resource.
            result = "not_leading"
            self.queue.done(key, loop.time())
        except (Refused, Unreachable, ChildrenRejected) as error:
            self._failed(key, error, logging.WARNING)
        except Exception as error:
            # A bug; it must not affect other resources.
            self._failed(key, error, logging.ERROR)
        finally:
            self.metrics.reconciles.labels(result).inc()
            self._wake.set()

    def _failed(self, key: Key, error: Exception, level: int) -> None:
        retry_after = error.retry_after if isinstance(error, Refused) else None
        delay = self.queue.failed(key, asyncio.get_running_loop().time(), retry_after or 0.0)
        fields = {
            "resource": f"{key.namespace}/{key.name}",
            "error": str(error) or type(error).__name__,
            "again_in_seconds": round(delay, 2),
        }
        trace = error if level >= logging.ERROR else None
        _log.log(level, "reconcile failed", extra={"fields": fields}, exc_info=trace)
