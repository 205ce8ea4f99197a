"""Runs reconciles from the queue concurrently, and requeues by their results and errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from autoglm.kube.fence import NotLeading
from autoglm.kube.kinds import Key
from autoglm.kube.transport import Refused, Unreachable
from autoglm.operator.metrics import Metrics
from autoglm.operator.queue import Queue
from autoglm.operator.reconcile import ChildrenRejected, ReconcileResult

_log = logging.getLogger("autoglm.operator")


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
                self._measure()
                await self._pause(loop)

    async def _pause(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until a key was added, a reconcile has ended, or a key is due."""
        due = self.queue.next_due() if self.queue.running < self.limit else None
        try:
            async with asyncio.timeout_at(due):
                await self._wake.wait()
        except TimeoutError:
            return

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

    def _measure(self) -> None:
        self.metrics.queue.set(len(self.queue))
        self.metrics.failing.set(self.queue.failing)
