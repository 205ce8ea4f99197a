import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autoglm.api.spec.traffic import Timeouts
from autoglm.gateway.proxy.timeouts import StallTimer, StreamTimeouts, bounded, stream_timeouts
from autoglm.validation import Operation, RequestInfo

STREAM = RequestInfo(Operation.GENERATE, "glm", streaming=True)
UNARY = RequestInfo(Operation.GENERATE, "glm")
DEFAULT = StreamTimeouts(300.0, 60.0)


@pytest.mark.parametrize(("total", "deadline"), [(None, 60.0), (5.0, 5.0), (100.0, 60.0)])
def test_the_shorter_deadline_wins(make: Any, total: float | None, deadline: float) -> None:
    assert bounded(make.request(), Timeouts(total_seconds=total)).deadline == deadline


@pytest.mark.parametrize(
    ("info", "timeouts", "expected"),
    [
        (STREAM, Timeouts(), DEFAULT),
        (STREAM, Timeouts(first_token_seconds=2), StreamTimeouts(2, 60.0)),
        (STREAM, Timeouts(first_token_seconds=2, chunk_seconds=1), StreamTimeouts(2, 1)),
        # Of a unary response neither can be seen.
        (UNARY, Timeouts(first_token_seconds=2, chunk_seconds=1), StreamTimeouts()),
    ],
)
def test_a_resources_timeouts_come_before_the_gateways(
    make: Any, info: RequestInfo, timeouts: Timeouts, expected: StreamTimeouts
) -> None:
    assert stream_timeouts(make.request(info=info), timeouts, DEFAULT) == expected


class Enough(Exception):
    pass


class Cut(Exception):
    pass


async def after(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "there"


@pytest.mark.looptime
async def test_a_wait_within_the_limit_gives_what_came() -> None:
    leash = StallTimer()
    leash.limit(2, Enough)
    assert [await leash.wait(lambda: after(1.5)) for _ in range(9)] == ["there"] * 9


@pytest.mark.looptime
async def test_a_wait_over_the_limit_ends() -> None:
    leash, loop = StallTimer(), asyncio.get_running_loop()
    leash.limit(2, Enough)
    begun = loop.time()
    with pytest.raises(Enough):
        await leash.wait(lambda: after(9))
    assert loop.time() - begun == pytest.approx(2, abs=0.01)


@pytest.mark.looptime
async def test_only_waits_count() -> None:
    leash = StallTimer()
    leash.limit(2, Enough)
    await leash.wait(lambda: after(0))
    await asyncio.sleep(100)
    assert await leash.wait(lambda: after(1.9)) == "there"


@pytest.mark.looptime
async def test_nothing_is_raised_without_a_wait_and_the_task_is_not_harmed() -> None:
    leash = StallTimer()
    leash.cut(Cut())
    await asyncio.sleep(1)
    with pytest.raises(Cut):
        await leash.wait(lambda: after(0))
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


@pytest.mark.looptime
async def test_a_cut_ends_the_wait_at_once() -> None:
    leash, loop = StallTimer(), asyncio.get_running_loop()
    loop.call_later(1, leash.cut, Cut())
    with pytest.raises(Cut):
        await leash.wait(lambda: after(9))
    assert loop.time() == pytest.approx(1, abs=0.01)
    await asyncio.sleep(1)


@pytest.mark.looptime
async def test_a_callers_cancellation_goes_before_a_cut() -> None:
    leash = StallTimer()
    task = asyncio.create_task(leash.wait(lambda: after(9)))
    await asyncio.sleep(1)
    leash.cut(Cut())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.looptime
async def test_what_comes_at_the_moment_of_the_cut_is_not_lost() -> None:
    leash = StallTimer()

    async def stubborn() -> str:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            return "there"
        return "late"

    asyncio.get_running_loop().call_later(1, leash.cut, Cut())
    assert await leash.wait(stubborn) == "there"
    with pytest.raises(Cut):
        await leash.wait(lambda: after(0))


@pytest.mark.looptime
async def test_the_end_of_a_stream_passes() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield

    chunks = nothing()
    with pytest.raises(StopAsyncIteration):
        await StallTimer().wait(chunks.__anext__)
