"""Writes in progress last while the Lease is renewed, and end before another operator may lead."""

from __future__ import annotations

import asyncio

import pytest

from autoglm.kube.fence import Fence, NotLeading

pytestmark = pytest.mark.looptime


async def write(fence: Fence, seconds: float) -> float:
    """Returns when it was done."""
    async with fence.guard():
        await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


async def test_a_write_outlasts_the_lease_time_while_it_is_renewed() -> None:
    fence = Fence()
    fence.extend(9)
    task = asyncio.create_task(write(fence, 40))
    for _ in range(30):
        await asyncio.sleep(2)
        fence.extend(9)
    assert await task == pytest.approx(40)


async def test_a_write_ends_in_time_where_the_lease_is_not_renewed() -> None:
    fence = Fence()
    fence.extend(9)
    with pytest.raises(NotLeading):
        await write(fence, 40)
    assert asyncio.get_running_loop().time() == pytest.approx(9)


async def test_losing_the_lease_ends_what_is_in_progress_at_once() -> None:
    fence = Fence()
    fence.extend(9)
    tasks = [asyncio.create_task(write(fence, 5)) for _ in range(3)]
    await asyncio.sleep(1)
    fence.extend(0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(e) for e in ended] == [NotLeading] * 3
    assert asyncio.get_running_loop().time() == pytest.approx(1)


async def test_time_outs_of_other_kinds_and_cancellation_pass_through() -> None:
    fence = Fence()
    fence.extend(9)
    with pytest.raises(TimeoutError):
        async with fence.guard(), asyncio.timeout(1):
            await asyncio.sleep(5)
    task = asyncio.create_task(write(fence, 5))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_an_election_nothing_ends_a_write() -> None:
    assert await write(Fence(), 1000) == pytest.approx(1000)
