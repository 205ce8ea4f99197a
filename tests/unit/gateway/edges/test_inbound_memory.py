from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from autoglm.common import errors
from autoglm.gateway.edges.inbound_memory import CALM_SECONDS, POLL_SECONDS, InboundMessages

pytestmark = pytest.mark.looptime
LIMIT = 800


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
