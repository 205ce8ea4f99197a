import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from autoglm.inference import gather
from autoglm.inference.engine import EngineRequest
from autoglm.inference.gather import FEW_STREAMS, MESSAGES_PER_SECOND, Pacer, Ticks, window

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


class Engine:
    """Runs its stream for so many seconds, and records its inputs."""

    def __init__(self, seconds: float = 1e9) -> None:
        self._end = asyncio.get_running_loop().time() + seconds
        self.told: list[str] = []

    def is_running(self, request_id: str) -> bool:
        return asyncio.get_running_loop().time() < self._end

    def hold(self, request_id: str) -> None:
        self.told.append(f"hold {request_id}")

    def release(self, request_id: str) -> None:
        self.told.append(f"release {request_id}")


Paced = Callable[..., AsyncGenerator[int, None]]


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Paced:
    """Paces a stream with a pause of so many seconds, however many streams there are."""

    def stream(chunks: AsyncIterator[int], pause: float, engine: Any) -> AsyncGenerator[int, None]:
        monkeypatch.setattr(gather, "window", lambda active, most: pause)
        return Pacer(0)(chunks, engine, EngineRequest("a"))

    return stream


async def times(paced: Paced, every: float, pause: float, ended_after: float = 1e9) -> list[float]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    stream = paced(numbers(every, 4), pause, Engine(ended_after))
    return [loop.time() - begun async for _ in stream]


@pytest.mark.looptime
async def test_tokens_are_held_just_as_long_as_none_takes_them(paced: Paced) -> None:
    engine = Engine()
    told = [list(engine.told) async for _ in paced(numbers(0, 3), 1, engine)]
    assert told == [[], ["hold a", "release a"], ["hold a", "release a"] * 2]


@pytest.mark.looptime
async def test_without_a_pause_nothing_is_held(paced: Paced) -> None:
    engine = Engine()
    _ = [_ async for _ in paced(numbers(0, 3), 0, engine)]
    assert engine.told == []


@pytest.mark.looptime
async def test_the_first_chunk_is_not_held_back(paced: Paced) -> None:
    assert (await times(paced, every=0, pause=1))[0] == 0


@pytest.mark.looptime
async def test_later_chunks_keep_their_distance(paced: Paced) -> None:
    assert await times(paced, every=0, pause=1) == pytest.approx([0, 1, 2, 3], abs=4 * TICK)


@pytest.mark.looptime
async def test_without_a_pause_chunks_pass_as_they_come(paced: Paced) -> None:
    assert await times(paced, every=0.5, pause=0) == pytest.approx([0, 0.5, 1, 1.5])


@pytest.mark.looptime
async def test_the_end_of_a_request_is_not_held_back(paced: Paced) -> None:
    found = await times(paced, every=0, pause=1, ended_after=1.5)
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


async def test_closing_ends_the_source(paced: Paced) -> None:
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = paced(chunks(), 0, Engine())
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed.is_set()


async def test_a_closed_stream_counts_no_more() -> None:
    pacer = Pacer(40)
    for _ in range(2 * FEW_STREAMS):
        stream = pacer(numbers(0, 3), Engine(), EngineRequest("a"))  # type: ignore[arg-type]
        await anext(stream)
        await stream.aclose()
    engine = Engine()
    _ = [_ async for _ in pacer(numbers(0, 3), engine, EngineRequest("a"))]  # type: ignore[arg-type]
    assert engine.told == []
