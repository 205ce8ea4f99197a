"""Receives gRPC messages, and cancels slow ones where the process has no memory for the rest.

gRPC delivers a message as a whole, and before that reports neither its length nor what has arrived,
so partial messages are in no memory budget. Only the memory of the process shows them. Over its
limit no message is begun, and those that have been arriving longest are given up, half of one
tenant's at a time, beginning with the tenant that has the most. Memory that is still in use after
that belongs to something else, and is excused.

`MemoryPressure` decides and is pure. The gRPC edge receives through `InboundMessages`; its `watch`
polls the process's memory and applies the decisions.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from autoglm.common.errors import QueueFull
from autoglm.common.process import resident_bytes

# Between two polls, and where less than half of the limit is used.
POLL_SECONDS, CALM_SECONDS = 0.02, 0.1
_LOG_SECONDS = 10.0
# A message without pauses arrives within milliseconds; slower ones may be given up.
PATIENCE_SECONDS = 0.1
# The divisor of the limit that gives the margin above what is excused.
_MARGIN = 8
# The usable part of a process's memory; the rest is for what arrives between two polls.
_USABLE = 0.75
_log = logging.getLogger("autoglm.gateway")


def process_limit(total: int, envoy: int) -> int:
    """Return the bytes that the gateway's process may use, after Envoy's part."""
    return int((total - envoy) * _USABLE)


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A message that gRPC is receiving."""

    tenant: str
    since: float
    """On the monotonic clock."""
    may_idle: bool = False
    """Whether it is one of a stream of messages, which may be idle. Given up last."""


@dataclass(frozen=True, slots=True)
class Relief:
    """Measures that relieve the pressure now."""

    is_short: bool = False
    """Whether further messages have to wait."""
    give_up: Sequence[Arrival] = ()
    trim: bool = False
    """Whether to return freed memory to the system before the next poll."""


class MemoryPressure:
    """Decides at each poll. `limit` is in bytes, as `used` is."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._excused = 0
        self._is_trimmed = False

    def relieve(self, used: int, arriving: Sequence[Arrival], now: float) -> Relief:
        if used <= self.limit:
            self._excused = 0
        if used <= max(self.limit, self._excused + self.limit // _MARGIN):
            self._is_trimmed = False
            return Relief()
        if not self._is_trimmed:
            self._is_trimmed = True
            return Relief(is_short=True, trim=True)
        if not arriving:
            self._excused = used
            return Relief()
        given_up = _longest(arriving, now)
        self._is_trimmed = not given_up
        return Relief(is_short=True, give_up=given_up)


def _longest(arriving: Iterable[Arrival], now: float) -> Sequence[Arrival]:
    slow = [a for a in arriving if now - a.since >= PATIENCE_SECONDS]
    of_tenants: defaultdict[str, list[Arrival]] = defaultdict(list)
    for arrival in [a for a in slow if not a.may_idle] or slow:
        of_tenants[arrival.tenant].append(arrival)
    most = max(of_tenants.values(), key=len, default=[])
    return sorted(most, key=lambda a: a.since)[: (len(most) + 1) // 2]


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
        """Return the next message; None after the last. Raises QueueFull where it is given up."""
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
            seconds = self._clock() - arrival.since
            raise QueueFull(
                f"the gateway has no memory left for the rest of this message, which has been "
                f"arriving for {seconds:.1f} s; send it again later",
                retry_after=1.0,
            ) from None
        finally:
            del self._tasks[arrival]
            self._given_up.discard(arrival)

    async def watch(self, limit: int, used: Callable[[], int | None] = resident_bytes) -> None:
        """Poll until cancelled, or until `used` returns None. Both are in bytes."""
        pressure = MemoryPressure(limit)
        while (bytes_used := used()) is not None:
            relief = pressure.relieve(bytes_used, [*self._tasks], self._clock())
            if not relief.is_short:
                self._has_room.set()
            elif self._has_room.is_set():
                self._has_room.clear()
                self._log_shortage(bytes_used, limit)
            for arrival in relief.give_up:
                self._given_up.add(arrival)
                self._tasks[arrival].cancel()
            if relief.trim:
                await asyncio.to_thread(_trim)
            else:
                await asyncio.sleep(POLL_SECONDS if 2 * bytes_used > limit else CALM_SECONDS)

    def _log_shortage(self, used: int, limit: int) -> None:
        if (now := self._clock()) - self._logged >= _LOG_SECONDS:
            self._logged = now
            fields = {"bytes": used, "limit_bytes": limit, "arriving_messages": len(self._tasks)}
            _log.warning(
                "memory is short; rejecting messages that arrive slowly",
                extra={"fields": fields},
            )


def _trim() -> None:
    """Return free memory to the system, where the C library is glibc (malloc_trim(3))."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
