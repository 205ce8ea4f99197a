"""Receives gRPC messages, and cancels slow ones where the process has no memory for the rest.

The gRPC edge receives through `InboundMessages`; `watch` polls the process's memory and applies the
decisions of `memory_pressure`.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from autoglm.common.errors import QueueFull
from autoglm.common.process.memory import resident_bytes
from autoglm.gateway.edges.memory_pressure import Arrival, MemoryPressure

# Between two polls, and where less than half of the limit is used.
POLL_SECONDS, CALM_SECONDS = 0.02, 0.1
_LOG_SECONDS = 10.0
_log = logging.getLogger("autoglm.gateway")


class InboundMessages:
    """Used by the tasks of calls, each of which receives one message at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[Arrival, asyncio.Task[object]] = {}
        self._given_up: set[Arrival] = set()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._logged = -math.inf

    async def next(
        self, messages: AsyncIterator[bytes], tenant: str, *, may_idle: bool = False
    ) -> bytes | None:
        """Returns the next message; None after the last. Raises QueueFull where it is given up."""
        if not self._has_room.is_set():
            await self._has_room.wait()
        task = asyncio.current_task()
        assert task is not None, "calls are tasks"
        arrival = Arrival(tenant, self._clock(), may_idle)
        self._tasks[arrival] = task
        try:
            return await anext(messages, None)
        except asyncio.CancelledError:
            if arrival not in self._given_up:
                raise
            task.uncancel()
            raise self._full(arrival) from None
        finally:
            del self._tasks[arrival]
            self._given_up.discard(arrival)

    async def watch(self, limit: int, used: Callable[[], int | None] = resident_bytes) -> None:
        """Polls until cancelled, or until `used` returns None. Both are in bytes."""
        pressure = MemoryPressure(limit)
        while (bytes_used := used()) is not None:
            relief = pressure.relieve(bytes_used, [*self._tasks], self._clock())
            self._set_room(not relief.is_short, bytes_used, limit)
            for arrival in relief.give_up:
                self._given_up.add(arrival)
                self._tasks[arrival].cancel()
            if relief.trim:
                await asyncio.to_thread(_trim)
            else:
                await asyncio.sleep(POLL_SECONDS if 2 * bytes_used > limit else CALM_SECONDS)

    def _set_room(self, has_room: bool, used: int, limit: int) -> None:
        if has_room:
            self._has_room.set()
        elif self._has_room.is_set():
            self._has_room.clear()
            self._log_shortage(used, limit)

    def _log_shortage(self, used: int, limit: int) -> None:
        if (now := self._clock()) - self._logged >= _LOG_SECONDS:
            self._logged = now
            fields = {"bytes": used, "limit_bytes": limit, "arriving_messages": len(self._tasks)}
            _log.warning(
                "memory is short; rejecting messages that arrive slowly",
                extra={"fields": fields},
            )

    def _full(self, arrival: Arrival) -> QueueFull:
        seconds = self._clock() - arrival.since
        return QueueFull(
            f"the gateway has no memory left for the rest of this message, which has been arriving "
            f"for {seconds:.1f} s; send it again later",
            retry_after=1.0,
        )


def _trim() -> None:
    """Returns free memory to the system, where the C library is glibc (malloc_trim(3))."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
