"""Writes at once: as many as the API server carries without slowing down."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.kube.transport import Refused, TimedOut
from autoglm.kube.write_limit import FIRST, WriteLimit, WriteSlots


def drive(limit: WriteLimit, seconds: float, writes: int, now: float = 0.0) -> float:
    """So many writes of one duration, as many at once as there is room for."""
    while writes > 0:
        batch = 0
        while limit.has_room and batch < writes:
            limit.began()
            batch += 1
        for _ in range(batch):
            limit.succeeded("services", now, now + seconds)
        now += seconds
        writes -= batch
    return now


def test_quick_writes_soon_reach_the_most() -> None:
    limit = WriteLimit(16)
    drive(limit, 0.01, 300)
    assert int(limit.limit) == 16


def test_a_server_that_is_slow_by_itself_is_not_taken_for_congested() -> None:
    limit = WriteLimit(16)
    drive(limit, 8.0, 300)
    assert int(limit.limit) == 16


def test_writes_that_become_slow_are_sent_fewer_at_once_and_more_again_afterwards() -> None:
    limit = WriteLimit(16)
    now = drive(limit, 0.05, 300)
    now = drive(limit, 5.0, 60, now)
    assert limit.limit < FIRST
    drive(limit, 0.05, 300, now)
    assert int(limit.limit) == 16


def test_one_slow_kind_of_write_is_compared_with_its_own_kind() -> None:
    limit = WriteLimit(16)
    for _ in range(100):
        limit.began()
        limit.succeeded("leases", 0, 0.01)
        limit.began()
        limit.succeeded("services", 0, 4.0)
    assert limit.limit >= FIRST


def test_writes_of_one_congestion_cut_the_limit_once() -> None:
    limit = WriteLimit(16, limit=16)
    for _ in range(16):
        limit.began()
    for _ in range(16):
        limit.overloaded(began=0, now=1)
    assert limit.limit == 8


@given(st.lists(st.tuples(st.sampled_from("sofa"), st.floats(0.001, 60)), max_size=200))
def test_the_limit_stays_within_its_bounds_and_one_write_may_always_go(
    ends: list[tuple[str, float]],
) -> None:
    limit, now = WriteLimit(16), 0.0
    for how, seconds in ends:
        limit.began()
        now += seconds
        match how:
            case "o":
                limit.overloaded(now - seconds, now)
            case "a":
                limit.abandoned()
            case kind:
                limit.succeeded(kind, now - seconds, now)
        assert 1 <= limit.limit <= 16
        assert limit.in_flight == 0 and limit.has_room


class Contended:
    """Each write takes `one` seconds for every write that is on its way."""

    def __init__(self, one: float) -> None:
        self.one, self.open, self.most, self.done = one, 0, 0, 0

    async def write(self) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await asyncio.sleep(self.one * self.open**2)
            self.done += 1
        finally:
            self.open -= 1


@pytest.mark.looptime
async def test_contention_that_grows_with_concurrency_is_found_and_avoided() -> None:
    server, limits = Contended(0.1), list[float]()
    slots = WriteSlots(16, limits.append)

    async def worker() -> None:
        for _ in range(12):
            async with slots.slot("services"):
                await server.write()

    await asyncio.gather(*(worker() for _ in range(16)))
    assert server.done == 16 * 12
    assert server.most < 10
    assert limits[-1] < 8


@pytest.mark.looptime
async def test_waiting_writes_go_in_order_and_a_cancelled_one_leaves_no_gap() -> None:
    slots, order = WriteSlots(1, lambda _: None), list[int]()

    async def write(number: int) -> None:
        async with slots.slot("x"):
            order.append(number)
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(write(n)) for n in range(5)]
    await asyncio.sleep(0.5)
    tasks[2].cancel()
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4]


@pytest.mark.looptime
@pytest.mark.parametrize("error", [Refused(429, "TooManyRequests", ""), TimedOut("60 s")])
async def test_overload_halves_the_limit(error: Exception) -> None:
    limits = list[float]()
    slots = WriteSlots(16, limits.append)
    with pytest.raises(type(error)):
        async with slots.slot("x"):
            raise error
    assert limits[-1] == FIRST / 2


@pytest.mark.looptime
async def test_slots_never_leak_however_writes_end() -> None:
    slots, rng, running = WriteSlots(4, lambda _: None), Random(3), 0

    async def write() -> None:
        nonlocal running
        async with slots.slot("x"):
            running += 1
            try:
                await asyncio.sleep(rng.random())
                if rng.random() < 0.3:
                    raise Refused(503, "Unavailable", "")
            finally:
                running -= 1

    tasks = [asyncio.create_task(write()) for _ in range(100)]
    for task in tasks:
        await asyncio.sleep(rng.random() * 0.1)
        if rng.random() < 0.2:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert running == 0
    await asyncio.wait_for(write_once(slots), 1)


async def write_once(slots: WriteSlots) -> None:
    async with slots.slot("x"):
        return
