"""How many requests begin in one round of the event loop. Asked by the REST edge.

A thousand that come in the same moment would all be read, judged and sent on in one round, some
hundred milliseconds in which no other stream gets its next chunk. So a few begin, then all who have
something to do have their turn, then the next few begin.
"""

from __future__ import annotations

import asyncio
from collections import deque


class StartThrottle:
    """First come, first served. To be used on one event loop."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_next_round_due = False

    async def cross(self) -> None:
        """Waits for the next round where this one's are used up."""
        self._look_again()
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _look_again(self) -> None:
        if not self._is_next_round_due:
            self._is_next_round_due = True
            asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        self._is_next_round_due, self._left = False, self._most
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            # Whose client has left needs none.
            if not turn.done():
                self._left -= 1
                turn.set_result(None)
        if self._waiting:
            self._look_again()
