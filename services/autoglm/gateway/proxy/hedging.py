"""When a request that waits for its first chunk is sent a second time, elsewhere.

Hedged requests (Dean and Barroso, "The Tail at Scale", 2013): after the usual time, within a budget
of extra load. `Hedges` decides and is pure; `race` has two attempts run and keeps one. Used by the
relay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

from autoglm.gateway.endpoints.safeguards import HedgePolicy
from autoglm.gateway.proxy.attempt import Attempt

_REMEMBERED = 256
# Fewer first chunks say nothing of what is usual.
_MIN_KNOWN = 20
_RESERVE = 10.0


class Hedges:
    """Of one model."""

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)
        self._tokens = 1.0

    def note(self, policy: HedgePolicy, waited: float) -> None:
        """A first chunk has come after so many seconds."""
        self._waits.append(waited)
        self._tokens = min(_RESERVE, self._tokens + policy.max_extra_ratio)

    def delay(self, policy: HedgePolicy) -> float | None:
        """How long to wait for a first chunk before the second request; None for ever."""
        if policy.delay_seconds is not None:
            return policy.delay_seconds
        if policy.percentile is None or len(self._waits) < _MIN_KNOWN:
            return None
        ordered = sorted(self._waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * policy.percentile / 100))]

    def withdraw(self) -> bool:
        """Whether a second request may be sent; it is paid for if so."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


Begin = Callable[[], Coroutine[None, None, Attempt]]


async def race(begin: Begin, delay: float, may_begin_another: Callable[[], bool]) -> Attempt:
    """The attempt that answers first; the other one is ended at once.

    Raises what the last one raises where none answers.
    """
    tasks = [asyncio.create_task(begin())]
    winner: Attempt | None = None
    try:
        done, _ = await asyncio.wait(tasks, timeout=delay)
        if not done and may_begin_another():
            tasks.append(asyncio.create_task(begin()))
        winner = await _first(tasks)
        return winner
    finally:
        await _end(tasks, winner)


async def _first(tasks: list[asyncio.Task[Attempt]]) -> Attempt:
    pending = set(tasks)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None or not pending:
                return task.result()


async def _end(tasks: list[asyncio.Task[Attempt]], winner: Attempt | None) -> None:
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Attempt) and found is not winner:
            await found.close(asyncio.CancelledError())
