"""Runs reconciles from the queue, so many at once. Decides what each way of failing means."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from autoglm.kube.fence import NotLeading
from autoglm.kube.key import Key
from autoglm.kube.transport import Refused, Unreachable
from autoglm.operator.metrics import Metrics
from autoglm.operator.queue import Queue
from autoglm.operator.reconcile import ChildrenRefused, Looked

_log = logging.getLogger("autoglm.operator")


@dataclass(slots=True)
class Dispatcher:
    """Everything happens on one event loop, whose time is the queue's."""

    queue: Queue[Key]
    reconcile: Callable[[Key], Awaitable[Looked]]
    metrics: Metrics
    limit: int
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, key: Key, after: float = 0.0, *, urgent: bool = False) -> None:
        self.queue.add(key, asyncio.get_running_loop().time(), after, urgent=urgent)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled, which cancels what runs."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                while self.queue.running < self.limit:
                    key = self.queue.take(loop.time())
                    if key is None:
                        break
                    tasks.create_task(self._one(key))
                self._measure()
                await self._pause(loop)

    async def _pause(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until something was added or is done, or a key's time has come."""
        due = self.queue.next_due() if self.queue.running < self.limit else None
        try:
            async with asyncio.timeout_at(due):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _one(self, key: Key) -> None:
        loop, result = asyncio.get_running_loop(), "failed"
        try:
            looked = await self.reconcile(key)
            result = looked.result
            self.queue.done(key, loop.time(), looked.requeue_after)
        except NotLeading:
            # Who leads next looks at everything anyway.
            result = "not_leading"
            self.queue.done(key, loop.time())
        except (Refused, Unreachable, ChildrenRefused) as error:
            self._failed(key, error, logging.WARNING)
        except Exception as error:
            # A bug; the resource's own, as far as the others are concerned.
            self._failed(key, error, logging.ERROR)
        finally:
            self.metrics.reconciles.labels(result).inc()
            self._wake.set()

    def _failed(self, key: Key, error: Exception, level: int) -> None:
        asked = error.retry_after if isinstance(error, Refused) else None
        delay = self.queue.failed(key, asyncio.get_running_loop().time(), asked or 0.0)
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
