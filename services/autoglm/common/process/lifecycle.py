"""Two-stage shutdown: the first SIGTERM or SIGINT drains, the second forces.

Decides nothing about what draining means; each `app.py` does. The exit code of a forced stop is
128 + the signal's number, as shells have it.
"""

from __future__ import annotations

import asyncio
import os
import signal


class Shutdown:
    """Waits for the first signal; from then on a second one ends the process at once."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()

    def install(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.signal, number)

    def signal(self, number: int) -> None:
        if self._requested.is_set():
            os._exit(128 + number)
        self._requested.set()

    def request(self) -> None:
        """Start draining without a signal."""
        self._requested.set()

    async def wait(self) -> None:
        await self._requested.wait()
