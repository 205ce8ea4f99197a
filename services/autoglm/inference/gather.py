"""Paces the messages of streams, so that messages never limit token throughput.

The first message goes out at once, and so does the last. Others leave a pause between them while
many streams are active; the engine keeps what comes meanwhile as one chunk for each completion
(a promise of the `Engine` contract), so nothing is buffered here. `window` decides, `Ticks` is the
one timer that all streams share, `Pacer` is what servicers call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

from autoglm.inference.engine import Engine, EngineRequest
from autoglm.inference.requests import closing

# Up to this many streams, one message a token costs less than anyone can notice.
FEW_STREAMS = 4
# Of a pod, where there are more: a small part of a core in gRPC's own work.
MESSAGES_PER_SECOND = 600
_TICK_SECONDS = 0.005
T = TypeVar("T")
Ended = Callable[[], bool]


def window(active_streams: int, most_milliseconds: float) -> float:
    """Return the pause between two messages of one stream, in seconds."""
    if active_streams <= FEW_STREAMS:
        return 0.0
    return min(most_milliseconds / 1000, active_streams / MESSAGES_PER_SECOND)


class Ticks:
    """Ends the pauses of many streams with one timer, so that they wake and write together."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], tuple[float, Ended]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, seconds: float, ended: Ended) -> None:
        """Return after `seconds`, or soon after `ended` comes true."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[future] = (loop.time() + seconds, ended)
        if self._timer is None:
            self._timer = loop.call_later(_TICK_SECONDS, self._tick, loop)
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for future, (end, ended) in self._waiting.items():
            if not future.done() and (now >= end or ended()):
                future.set_result(None)
        over = all(future.done() for future in self._waiting)
        self._timer = None if over else loop.call_later(_TICK_SECONDS, self._tick, loop)


class Pacer:
    """Paces every stream by how many there are. One for all servicers."""

    def __init__(self, most_milliseconds: float) -> None:
        self._most_milliseconds = most_milliseconds
        self._active = 0
        self._wait = Ticks()

    async def __call__(
        self, chunks: AsyncIterator[T], engine: Engine, call: EngineRequest
    ) -> AsyncGenerator[T, None]:
        """Yield the chunks of a stream, with pauses between them while the engine generates."""
        name = call.request_id

        def ended() -> bool:
            return not engine.is_running(name)

        self._active += 1
        try:
            async with closing(chunks) as pieces:
                async for chunk in pieces:
                    yield chunk
                    seconds = window(self._active, self._most_milliseconds)
                    if seconds > 0 and engine.is_running(name):
                        engine.hold(name)
                        await self._wait(seconds, ended)
                        engine.release(name)
        finally:
            self._active -= 1
