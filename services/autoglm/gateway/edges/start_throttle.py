"""Limits how many requests begin in one round of the event loop. Used by the REST edge.

A thousand requests that arrive together would all be read, validated and forwarded in one round, a
few hundred milliseconds in which no other stream gets its next chunk. So a few begin, then every
other task runs, then the next few begin.
"""

from __future__ import annotations

import asyncio
from collections import deque


class StartThrottle:
    """A first-in, first-out queue for the tasks of one event loop."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_next_round_due = False

    async def wait(self) -> None:
        """Wait for a later round where this one's requests have begun."""
        self._schedule_round()
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _schedule_round(self) -> None:
        if not self._is_next_round_due:
            self._is_next_round_due = True
            asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        self._is_next_round_due, self._left = False, self._most
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            # The client may have disconnected meanwhile.
            if not turn.done():
                self._left -= 1
                turn.set_result(None)
        if self._waiting:
            self._schedule_round()
