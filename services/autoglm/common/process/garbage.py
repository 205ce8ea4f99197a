"""When a server's garbage is collected in full. The decision is pure; gateway and pods `collect`.

A full collection looks at everything that lives: with a thousand open streams some hundred
milliseconds, in which nothing is relayed. Python would do it every few seconds while streams come
and go; here it waits for a quiet moment. So does a middle one, as long, if it is left to find what
ten young ones have kept; it comes sooner here and has less to look at.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

# Allocations before a young collection, young ones before a middle one; no full one by itself. A
# middle one looks at the product of both at most, which has to take some milliseconds only.
_THRESHOLDS = (2_000, 3, 1_000_000)
LOOK_SECONDS = 1.0
# So few requests are a quiet moment; it is used this often.
QUIET_REQUESTS, QUIET_SECONDS = 32, 10.0
# Without a quiet moment it is done at last, since what is left lying takes memory.
LATEST_SECONDS = 300.0


def is_due(seconds: float, requests: int) -> bool:
    """So long after the last full collection, with so many requests open."""
    return seconds >= (QUIET_SECONDS if requests <= QUIET_REQUESTS else LATEST_SECONDS)


async def collect(requests: Callable[[], int]) -> None:
    """Until it is cancelled. What is alive now lives as long as the process and is never looked at
    again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    last, worth = time.monotonic(), False
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        worth = worth or requests() > 0
        if worth and is_due(time.monotonic() - last, requests()):
            gc.collect()
            last, worth = time.monotonic(), False
