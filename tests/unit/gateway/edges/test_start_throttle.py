from __future__ import annotations

import asyncio
from contextlib import suppress

from autoglm.gateway.edges.start_throttle import StartThrottle


async def _rounds(throttle: StartThrottle, callers: int) -> list[int]:
    """In which round of the loop each of the callers, who come at once, has crossed."""
    current = 0
    crossed: list[tuple[int, int]] = []

    async def caller(number: int) -> None:
        await throttle.wait()
        crossed.append((number, current))

    tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
    while len(crossed) < callers:
        current += 1
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert [number for number, _ in crossed] == list(range(callers)), "first come, first served"
    return [round for _, round in crossed]


async def test_of_many_that_come_at_once_only_a_few_begin_in_one_round() -> None:
    rounds = await _rounds(StartThrottle(8), 1000)
    assert max(rounds.count(round) for round in set(rounds)) == 8


async def test_few_do_not_wait() -> None:
    assert set(await _rounds(StartThrottle(8), 8)) == {1}


async def test_all_that_wait_cross_within_as_many_rounds_as_there_are_groups() -> None:
    rounds = await _rounds(StartThrottle(8), 1000)
    assert rounds[-1] - rounds[0] <= 1000 / 8 + 1


async def test_who_comes_later_does_not_overtake_who_waits() -> None:
    throttle, order = StartThrottle(1), list[int]()

    async def caller(number: int) -> None:
        await throttle.wait()
        order.append(number)

    tasks = [asyncio.create_task(caller(number)) for number in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(caller(number)) for number in range(3, 6)]
    await asyncio.gather(*tasks)
    assert order == sorted(order)


async def test_who_leaves_while_waiting_takes_nobodys_turn() -> None:
    throttle = StartThrottle(1)
    await throttle.wait()
    leaving = [asyncio.create_task(throttle.wait()) for _ in range(5)]
    staying = asyncio.create_task(throttle.wait())
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    async with asyncio.timeout(1):
        await staying
