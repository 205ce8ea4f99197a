import asyncio

import pytest

from autoglm.common import errors
from autoglm.gateway.edges.slow_client import SlowReader


async def write(reader: SlowReader, *seconds: float) -> int:
    """Chunks that take so long each; how many were taken."""
    with reader:
        for one in seconds:
            reader.begin()
            await asyncio.sleep(one)
            reader.end()
            # What the pod takes for the next one does not count.
            await asyncio.sleep(20)
    return len(seconds)


@pytest.mark.looptime
async def test_client_that_reads_slowly_but_steadily_is_served() -> None:
    assert await write(SlowReader(10), 9, 9, 0, 9) == 4


@pytest.mark.looptime
async def test_client_that_stops_reading_ends_its_stream() -> None:
    told: list[float] = []
    clock = asyncio.get_running_loop().time
    with pytest.raises(errors.Cancelled, match="10 s"):
        await write(SlowReader(10, lambda: told.append(clock())), 3, 1000)
    # Three seconds, twenty of the pod, ten of patience, and the grain of the looks.
    assert told == [pytest.approx(33, abs=0.6)]
    await asyncio.sleep(1)


@pytest.mark.looptime
async def test_cancel_by_others_stays_one() -> None:
    task = asyncio.create_task(write(SlowReader(10), 1000))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
