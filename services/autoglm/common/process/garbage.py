"""Schedules full garbage collections. The decision is pure; gateway and pods call `collect`.

A full collection traverses all live objects: with a thousand open streams that takes some hundred
milliseconds, in which nothing is relayed. Python would run one every few seconds while streams
start and end; here it waits for a quiet moment. A collection of the middle generation takes as long
if it runs after ten young ones; here it runs sooner and has fewer objects to traverse.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

# Allocations before a young collection, young ones before a middle one; no full one by itself. A
# middle one traverses at most the product of both, which takes a few milliseconds.
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
    """Collects garbage until it is cancelled.

    Objects that are alive now are taken to live as long as the process and are never traversed
    again.
    """
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
