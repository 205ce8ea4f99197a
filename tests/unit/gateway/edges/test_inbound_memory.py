from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common import errors
from autoglm.gateway.edges.inbound_memory import (
    CALM_SECONDS,
    PATIENCE_SECONDS,
    POLL_SECONDS,
    Arrival,
    InboundMessages,
    MemoryPressure,
    Relief,
    process_limit,
)

pytestmark = pytest.mark.looptime
LIMIT = 800
NOW = 100.0
_ARRIVALS = st.lists(
    st.builds(
        Arrival,
        tenant=st.sampled_from("abc"),
        since=st.floats(NOW - 10, NOW),
        may_idle=st.booleans(),
    ),
    max_size=12,
)


async def messages(*seconds: float) -> AsyncIterator[bytes]:
    """Each takes so long to be whole."""
    for number, one in enumerate(seconds):
        await asyncio.sleep(one)
        yield b"%d" % number


class Memory:
    """Of a process: what each message takes that arrives, and the rest."""

    def __init__(self, rest: int = 0) -> None:
        self.rest = rest
        self.arriving = 0

    def used(self) -> int:
        return self.rest + self.arriving


@asynccontextmanager
async def watched(memory: Memory) -> AsyncIterator[InboundMessages]:
    arrivals = InboundMessages(asyncio.get_running_loop().time)
    watch = asyncio.create_task(arrivals.watch(LIMIT, memory.used))
    yield arrivals
    watch.cancel()
    await asyncio.wait([watch])


async def arrive(
    arrivals: InboundMessages, memory: Memory, size: int, *seconds: float
) -> bytes | None:
    memory.arriving += size
    try:
        return await arrivals.next(messages(*seconds), "tenant")
    finally:
        memory.arriving -= size


async def test_messages_come_one_after_the_other_and_none_after_the_last() -> None:
    async with watched(Memory()) as arrivals:
        stream = messages(1, 1)
        got = [await arrivals.next(stream, "tenant", may_idle=True) for _ in range(3)]
    assert got == [b"0", b"1", None]


async def test_slow_messages_are_given_up_until_the_rest_fit() -> None:
    memory = Memory(100)
    async with watched(memory) as arrivals:
        calls = [arrive(arrivals, memory, 100, 60) for _ in range(16)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    refused = [end for end in ends if isinstance(end, errors.QueueFull)]
    assert refused and refused[0].retry_after == 1.0
    assert "arriving for" in str(refused[0])
    assert ends.count(b"0") == 16 - len(refused) >= 4
    assert memory.arriving == 0


async def test_message_that_comes_while_memory_is_short_waits_and_arrives() -> None:
    memory, clock = Memory(100), asyncio.get_running_loop().time
    async with watched(memory) as arrivals:
        flood = [asyncio.create_task(arrive(arrivals, memory, 100, 60)) for _ in range(16)]
        await asyncio.sleep(CALM_SECONDS + POLL_SECONDS / 2)
        begun = clock()
        assert await arrivals.next(messages(0), "light") == b"0"
        assert 0 < clock() - begun < 2
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def test_process_that_is_large_for_another_reason_serves_on() -> None:
    async with watched(Memory(10 * LIMIT)) as arrivals:
        await asyncio.sleep(1)
        for _ in range(20):
            assert await arrivals.next(messages(1), "tenant") == b"0"


async def test_cancel_by_the_client_stays_one() -> None:
    async with watched(Memory()) as arrivals:
        call = asyncio.create_task(arrivals.next(messages(60), "tenant"))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_nothing_is_watched_where_the_system_does_not_report() -> None:
    await InboundMessages().watch(LIMIT, lambda: None)


def short(used: int = LIMIT + 1) -> MemoryPressure:
    """Memory has been given back already, and is short all the same."""
    pressure = MemoryPressure(LIMIT)
    assert pressure.relieve(used, (), NOW) == Relief(is_short=True, trim=True)
    return pressure


def slow(count: int, tenant: str = "a", seconds: float = 5.0) -> list[Arrival]:
    return [Arrival(tenant, NOW - seconds - number) for number in range(count)]


@given(_ARRIVALS, st.integers(0, LIMIT))
def test_nothing_is_given_up_below_the_limit(arriving: list[Arrival], used: int) -> None:
    assert MemoryPressure(LIMIT).relieve(used, arriving, NOW) == Relief()


@given(_ARRIVALS)
def test_what_is_freed_goes_back_before_anything_is_given_up(arriving: list[Arrival]) -> None:
    assert MemoryPressure(LIMIT).relieve(LIMIT + 1, arriving, NOW) == Relief(
        is_short=True, trim=True
    )


@given(_ARRIVALS)
def test_given_up_are_the_longest_of_the_tenant_with_most(arriving: list[Arrival]) -> None:
    given_up = short().relieve(LIMIT + 1, arriving, NOW).give_up
    patient = [a for a in arriving if NOW - a.since >= PATIENCE_SECONDS]
    counted = [a for a in patient if not a.may_idle] or patient
    counts = Counter(a.tenant for a in counted)
    assert len(given_up) == math.ceil(max(counts.values(), default=0) / 2)
    if given_up:
        (tenant,) = {a.tenant for a in given_up}
        assert counts[tenant] == max(counts.values())
        others = [a for a in counted if a.tenant == tenant and a not in given_up]
        assert all(a.since <= other.since for a in given_up for other in others)


def test_messages_that_come_in_one_piece_are_never_given_up() -> None:
    arriving = [Arrival("a", NOW - PATIENCE_SECONDS / 2) for _ in range(100)]
    relief = short().relieve(2 * LIMIT, arriving, NOW)
    assert relief.is_short and not relief.give_up


def test_streams_that_may_idle_are_given_up_last() -> None:
    idle = Arrival("a", NOW - 1000, may_idle=True)
    message = Arrival("b", NOW - 1)
    assert short().relieve(LIMIT + 1, [idle, message], NOW).give_up == [message]
    assert short().relieve(LIMIT + 1, [idle], NOW).give_up == [idle]


def test_memory_is_given_back_again_after_messages_were_given_up() -> None:
    pressure, arriving = short(), slow(4)
    assert len(pressure.relieve(LIMIT + 1, arriving, NOW).give_up) == 2
    assert pressure.relieve(LIMIT + 1, arriving[2:], NOW).trim
    assert len(pressure.relieve(LIMIT + 1, arriving[:2], NOW).give_up) == 1


def test_what_no_message_takes_is_excused_and_more_of_it_is_not() -> None:
    pressure, much = short(2 * LIMIT), 2 * LIMIT
    assert pressure.relieve(much, (), NOW) == Relief()
    assert pressure.relieve(much + LIMIT // 8, slow(4), NOW) == Relief()
    assert pressure.relieve(much + LIMIT // 8 + 1, slow(4), NOW) == Relief(is_short=True, trim=True)
    assert pressure.relieve(much + LIMIT // 8 + 1, slow(4), NOW).give_up


def test_excuse_ends_when_there_is_room_again() -> None:
    pressure = short(2 * LIMIT)
    pressure.relieve(2 * LIMIT, (), NOW)
    pressure.relieve(LIMIT, (), NOW)
    assert pressure.relieve(LIMIT + 1, (), NOW).is_short


def test_parts_of_a_container_leave_a_quarter_of_each_for_what_comes_between_two_looks() -> None:
    assert process_limit(1000, envoy=0) == 750
    assert process_limit(1000, envoy=500) == 375
