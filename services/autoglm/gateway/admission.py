"""How many requests the gateway serves at once. Pure counting; used by the admit layer.

One bound for all models: over it a request is refused at once, so that memory stays bounded and
clients hear of it while they can still go elsewhere.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from autoglm.common.errors import QueueFull

_RETRY_AFTER = 1.0


class Limiter:
    """Counts requests in flight up to a limit. A slot ends when its context does."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.idle = asyncio.Event()
        """Set while nothing is in flight; draining waits for it."""
        self.idle.set()

    def acquire(self) -> Slot:
        """Raises QueueFull."""
        if self.in_flight >= self.limit:
            raise QueueFull(
                f"the gateway is serving {self.in_flight} requests, its limit; try again later",
                retry_after=_RETRY_AFTER,
            )
        self.in_flight += 1
        self.idle.clear()
        return Slot(self)

    def release(self) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle.set()


class Slot:
    """Held from `acquire` on; leave its context once."""

    __slots__ = ("_limiter",)

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._limiter.release()
