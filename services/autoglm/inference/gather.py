"""How long a stream waits between messages, so that messages never limit token throughput.

The first message goes out at once. Later ones leave a pause between them while many streams are
active; the engine merges what comes meanwhile into one chunk for each completion (a promise of the
`Engine` contract), so nothing is buffered here. `window` decides, `paced` waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

from autoglm.inference.requests import closing

# Up to this many streams, one message a token costs less than anyone can notice.
FEW_STREAMS = 4
MANY_STREAMS = 16
T = TypeVar("T")


def window(active_streams: int, milliseconds: float) -> float:
    """Seconds to leave between two messages of one stream: none for few, all for many."""
    share = (active_streams - FEW_STREAMS) / (MANY_STREAMS - FEW_STREAMS)
    return milliseconds / 1000 * min(1.0, max(0.0, share))


async def paced(
    chunks: AsyncIterator[T], pause: Callable[[], float], now: Callable[[], float]
) -> AsyncGenerator[T, None]:
    """The chunks, with at least `pause()` seconds between them."""
    async with closing(chunks) as source:
        async for chunk in source:
            sent = now()
            yield chunk
            remaining = sent + pause() - now()
            if remaining > 0:
                await asyncio.sleep(remaining)
