import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autoglm.common.errors import DeadlineExceeded
from autoglm.common.validation import Ask, Operation
from autoglm.gateway.call import Reply
from autoglm.gateway.pacing import bounded, paced
from autoglm.gateway.resources import Rules

STREAM = Ask(Operation.GENERATE, "glm", streaming=True)
UNARY = Ask(Operation.GENERATE, "glm")


async def chunks(*pauses: float) -> AsyncIterator[bytes]:
    for pause in pauses:
        await asyncio.sleep(pause)
        yield b"x"


async def reply(after: float, *pauses: float) -> Reply:
    await asyncio.sleep(after)
    return Reply(chunks(*pauses))


@pytest.mark.parametrize(("total", "deadline"), [(None, 60.0), (5.0, 5.0), (100.0, 60.0)])
def test_the_shorter_deadline_wins(make: Any, total: float | None, deadline: float) -> None:
    assert bounded(make.call(), Rules(total_seconds=total)).deadline == deadline


@pytest.mark.looptime
async def test_a_stream_without_a_first_token_ends(make: Any) -> None:
    call, rules = make.call(ask=STREAM), Rules(first_token_seconds=2)
    with pytest.raises(DeadlineExceeded, match="no first token of 'glm' within 2 s"):
        await paced(reply(3), call, rules, 0.0)


@pytest.mark.looptime
async def test_time_already_spent_counts_for_the_first_token(make: Any) -> None:
    call, rules = make.call(ask=STREAM), Rules(first_token_seconds=2)
    with pytest.raises(DeadlineExceeded):
        await paced(reply(1.5), call, rules, 1.0)


@pytest.mark.looptime
async def test_a_stream_that_falls_silent_ends(make: Any) -> None:
    begun = await paced(reply(9, 1, 3), make.call(ask=STREAM), Rules(chunk_seconds=2), 0.0)
    assert await anext(begun.chunks) == b"x"
    with pytest.raises(DeadlineExceeded, match="no chunk for 2 s"):
        await anext(begun.chunks)


@pytest.mark.looptime
async def test_a_steady_stream_may_take_as_long_as_it_likes(make: Any) -> None:
    rules = Rules(first_token_seconds=2, chunk_seconds=2)
    begun = await paced(reply(1, *[1.5] * 20), make.call(ask=STREAM), rules, 0.0)
    assert len([chunk async for chunk in begun.chunks]) == 20


@pytest.mark.looptime
async def test_an_answer_in_one_piece_has_no_first_token(make: Any) -> None:
    rules = Rules(first_token_seconds=1, chunk_seconds=1)
    begun = await paced(reply(5, 5), make.call(ask=UNARY), rules, 0.0)
    assert [chunk async for chunk in begun.chunks] == [b"x"]
