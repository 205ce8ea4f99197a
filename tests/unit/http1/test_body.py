"""A body is relayed piece by piece as it arrives, as fast as its receiver takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from autoglm.http1.body import HIGH_WATER_BYTES, BodyBuffer


class Source:
    """A connection that keeps the calls of its reader."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def pause_reading(self) -> None:
        self.events.append("pause")

    def resume_reading(self) -> None:
        self.events.append("resume")


class Receiver:
    """Takes pieces; while `gate` is closed each one is waited for."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.gate: asyncio.Event | None = None
        self.failure: Exception | None = None

    def write(self, piece: bytes) -> Awaitable[None] | None:
        if self.failure is not None:
            raise self.failure
        self.taken.append(piece)
        return None if self.gate is None else self._opened(self.gate)

    async def _opened(self, gate: asyncio.Event) -> None:
        await gate.wait()


class Stage:
    def __init__(self) -> None:
        self.source, self.receiver = Source(), Receiver()
        self.body = BodyBuffer(self.source)

    async def relay(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.body.relay(self.receiver.write))
        await asyncio.sleep(0)
        return task


async def test_pieces_are_passed_on_at_once_and_in_order() -> None:
    stage = Stage()
    stage.body.feed(b"before")
    stage.body.feed(b"hand")
    task = await stage.relay()
    for piece in (b"a", b"b"):
        stage.body.feed(piece)
    assert stage.receiver.taken == [b"beforehand", b"a", b"b"] and not task.done()
    stage.body.end()
    await task


async def test_a_body_that_is_complete_already_is_relayed() -> None:
    stage = Stage()
    stage.body.feed(b"all")
    stage.body.end()
    await stage.body.relay(stage.receiver.write)
    assert stage.receiver.taken == [b"all"]


async def test_a_slow_receiver_is_waited_for_and_stops_the_source() -> None:
    stage = Stage()
    stage.receiver.gate = asyncio.Event()
    task = await stage.relay()
    stage.body.feed(b"first")
    for _ in range(3):
        stage.body.feed(bytes(HIGH_WATER_BYTES // 2))
    assert stage.receiver.taken == [b"first"]
    assert stage.source.events == ["pause"]
    stage.body.end()
    gate, stage.receiver.gate = stage.receiver.gate, None
    gate.set()
    await task
    assert stage.source.events == ["pause", "resume"]
    assert sum(map(len, stage.receiver.taken)) == 5 + 3 * (HIGH_WATER_BYTES // 2)


async def test_what_arrived_before_a_failure_is_passed_on() -> None:
    stage = Stage()
    stage.receiver.gate = asyncio.Event()
    task = await stage.relay()
    stage.body.feed(b"a")
    stage.body.feed(b"b")
    stage.body.fail(ConnectionError("lost"))
    assert not task.done()
    stage.receiver.gate.set()
    with pytest.raises(ConnectionError, match="lost"):
        await task
    assert stage.receiver.taken == [b"a", b"b"]


async def test_the_error_of_a_receiver_ends_the_relay_and_nothing_more_is_passed_on() -> None:
    stage = Stage()
    task = await stage.relay()
    stage.body.feed(b"a")
    stage.receiver.failure = ConnectionResetError("left")
    stage.body.feed(b"b")
    stage.receiver.failure = None
    stage.body.feed(b"c")
    stage.body.end()
    with pytest.raises(ConnectionResetError):
        await task
    assert stage.receiver.taken == [b"a"]


async def test_the_error_of_a_receiver_that_was_waited_for_ends_the_relay() -> None:
    stage = Stage()

    async def left() -> None:
        raise ConnectionResetError("left")

    task = asyncio.create_task(stage.body.relay(lambda _: left()))
    await asyncio.sleep(0)
    stage.body.feed(b"a")
    with pytest.raises(ConnectionResetError):
        await task


async def test_a_cancelled_relay_leaves_nothing_that_waits() -> None:
    stage = Stage()
    stage.receiver.gate = asyncio.Event()
    task = await stage.relay()
    stage.body.feed(b"a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    stage.body.feed(b"b")
    assert stage.receiver.taken == [b"a"]
