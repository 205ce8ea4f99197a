"""Decides when a request without a first chunk is sent to a second endpoint as well.

Hedged requests (Dean and Barroso, "The Tail at Scale", 2013): after the usual latency, within a
budget of extra load. `Hedges` decides and is pure; `race` runs two attempts and keeps one. Used by
the proxy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

from autoglm.api.spec.traffic import Hedging
from autoglm.gateway.proxy.attempt import Attempt

_REMEMBERED = 256
# Fewer samples give no percentile.
_MIN_KNOWN = 20
_RESERVE = 10.0


class Hedges:
    """The hedging budget and the latencies of one model."""

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)
        self._tokens = 1.0

    def note(self, policy: Hedging, waited: float) -> None:
        """Records the seconds until a first chunk."""
        self._waits.append(waited)
        self._tokens = min(_RESERVE, self._tokens + policy.max_extra_ratio)

    def delay(self, policy: Hedging) -> float | None:
        """Returns the seconds to wait for a first chunk before hedging; None is no hedging."""
        if policy.delay_seconds is not None:
            return policy.delay_seconds
        if policy.percentile is None or len(self._waits) < _MIN_KNOWN:
            return None
        ordered = sorted(self._waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * policy.percentile / 100))]

    def withdraw(self) -> bool:
        """Withdraws a second attempt from the budget. Returns False where it is spent."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


Begin = Callable[[], Coroutine[None, None, Attempt]]


async def race(begin: Begin, delay: float, may_begin_another: Callable[[], bool]) -> Attempt:
    """Returns the attempt that responds first, and cancels the other one.

    Raises the error of the last one where none responds.
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
