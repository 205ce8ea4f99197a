import asyncio
from collections.abc import AsyncIterator

import pytest

from autoglm.inference.gather import FEW_STREAMS, MANY_STREAMS, paced, window


@pytest.mark.parametrize(
    ("streams", "seconds"),
    [(1, 0.0), (FEW_STREAMS, 0.0), (10, 0.005), (MANY_STREAMS, 0.01), (1000, 0.01)],
)
def test_the_pause_grows_with_the_streams(streams: int, seconds: float) -> None:
    assert window(streams, 10) == pytest.approx(seconds)


def test_gathering_can_be_off() -> None:
    assert window(1000, 0) == 0


async def numbers(every: float, count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number
        await asyncio.sleep(every)


async def times(every: float, pause: float) -> list[float]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    stream = paced(numbers(every, 4), lambda: pause, loop.time)
    return [round(loop.time() - begun, 6) async for _ in stream]


@pytest.mark.looptime
async def test_the_first_chunk_is_not_held_back() -> None:
    assert (await times(every=0, pause=1))[0] == 0


@pytest.mark.looptime
async def test_later_chunks_keep_their_distance() -> None:
    assert await times(every=0, pause=1) == [0, 1, 2, 3]


@pytest.mark.looptime
async def test_without_a_pause_chunks_pass_as_they_come() -> None:
    assert await times(every=0.5, pause=0) == [0, 0.5, 1, 1.5]


async def test_closing_ends_the_source() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = paced(source(), lambda: 0, asyncio.get_running_loop().time)
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed.is_set()
