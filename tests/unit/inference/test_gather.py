import asyncio
from collections.abc import AsyncIterator

import pytest

from autoglm.inference.gather import FEW_STREAMS, MESSAGES_PER_SECOND, Ticks, paced, window

TICK = 0.005


@pytest.mark.parametrize("streams", [0, 1, FEW_STREAMS])
def test_few_streams_do_not_wait(streams: int) -> None:
    assert window(streams, 40) == 0


@pytest.mark.parametrize("streams", [FEW_STREAMS + 1, 8, 20])
def test_more_streams_share_the_messages_of_a_second(streams: int) -> None:
    assert streams / window(streams, 40) == pytest.approx(MESSAGES_PER_SECOND)


def test_the_pause_has_a_limit() -> None:
    assert window(1000, 40) == 0.04


def test_gathering_can_be_off() -> None:
    assert window(1000, 0) == 0


async def numbers(every: float, count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number
        await asyncio.sleep(every)


class Source:
    """Runs for so many seconds, and records its inputs."""

    def __init__(self, seconds: float = 1e9) -> None:
        self._end = asyncio.get_running_loop().time() + seconds
        self.told: list[str] = []

    def is_running(self) -> bool:
        return asyncio.get_running_loop().time() < self._end

    def hold(self) -> None:
        self.told.append("hold")

    def release(self) -> None:
        self.told.append("release")


async def times(every: float, pause: float, ended_after: float = 1e9) -> list[float]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    stream = paced(numbers(every, 4), lambda: pause, Source(ended_after), Ticks())
    return [loop.time() - begun async for _ in stream]


@pytest.mark.looptime
async def test_tokens_are_held_just_as_long_as_none_takes_them() -> None:
    source = Source()
    told = [list(source.told) async for _ in paced(numbers(0, 3), lambda: 1, source, Ticks())]
    assert told == [[], ["hold", "release"], ["hold", "release"] * 2]


@pytest.mark.looptime
async def test_without_a_pause_nothing_is_held() -> None:
    source = Source()
    _ = [_ async for _ in paced(numbers(0, 3), lambda: 0, source, Ticks())]
    assert source.told == []


@pytest.mark.looptime
async def test_the_first_chunk_is_not_held_back() -> None:
    assert (await times(every=0, pause=1))[0] == 0


@pytest.mark.looptime
async def test_later_chunks_keep_their_distance() -> None:
    assert await times(every=0, pause=1) == pytest.approx([0, 1, 2, 3], abs=4 * TICK)


@pytest.mark.looptime
async def test_without_a_pause_chunks_pass_as_they_come() -> None:
    assert await times(every=0.5, pause=0) == pytest.approx([0, 0.5, 1, 1.5])


@pytest.mark.looptime
async def test_the_end_of_a_request_is_not_held_back() -> None:
    found = await times(every=0, pause=1, ended_after=1.5)
    assert found == pytest.approx([0, 1, 1.5, 1.5], abs=4 * TICK)


@pytest.mark.looptime
async def test_pauses_end_in_their_own_time() -> None:
    loop, wait = asyncio.get_running_loop(), Ticks()
    begun = loop.time()

    async def over(seconds: float) -> float:
        await wait(seconds, lambda: False)
        return loop.time() - begun

    found = await asyncio.gather(over(0.3), over(0.1), over(0.2))
    assert found == pytest.approx([0.3, 0.1, 0.2], abs=2 * TICK)


@pytest.mark.looptime
async def test_a_cancelled_pause_disturbs_no_other() -> None:
    wait = Ticks()
    first, second = (asyncio.create_task(wait(1, lambda: False)) for _ in range(2))
    await asyncio.sleep(0.5)
    first.cancel()
    await second
    assert first.cancelled()


async def test_closing_ends_the_source() -> None:
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = paced(chunks(), lambda: 0, Source(), Ticks())
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed.is_set()
