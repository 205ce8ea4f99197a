"""Requests that have ended are gone: nothing of them waits for a collection of garbage.

What waits for one is memory under load, and later a stall as long as it takes to visit all of it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiohttp
import grpc
import pytest

from autoglm import v1
from autoglm.common import errors
from autoglm.testing.fake_pod import FakePod

ASK = v1.GenerateRequest(model="fake", text="Hello")
COUNT = 30
Ask = Callable[[Any, str], Awaitable[None]]


async def unary(stub: Any, _: str) -> None:
    await stub.Generate(ASK)


async def stream(stub: Any, _: str) -> None:
    async for _chunk in stub.GenerateStream(ASK):
        pass


async def cancelled(stub: Any, _: str) -> None:
    call = stub.GenerateStream(ASK)
    await call.read()
    call.cancel()


async def late(stub: Any, _: str) -> None:
    with suppress(grpc.aio.AioRpcError):
        await stub.Generate(ASK, timeout=0.001)


async def wrong(stub: Any, _: str) -> None:
    with suppress(grpc.aio.AioRpcError):
        await stub.Generate(v1.GenerateRequest(model="fake"))


async def unavailable(_: Any, url: str) -> None:
    """The fake pod serves no REST."""
    body = json.dumps({"model": "fake", "prompt": "Hello"}).encode()
    headers = {"content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/completions", data=body, headers=headers) as answer,
    ):
        assert answer.status == 503


@pytest.mark.parametrize("ask", [unary, stream, cancelled, late, wrong, unavailable])
async def test_requests_that_have_ended_leave_nothing_to_collect(fleet: Any, ask: Ask) -> None:
    assert await left_by(fleet, FakePod(text="a b c d e f"), ask) == {}


async def test_streams_that_broke_leave_nothing_to_collect(fleet: Any) -> None:
    async def broken(stub: Any, url: str) -> None:
        with suppress(grpc.aio.AioRpcError):
            await stream(stub, url)

    pod = FakePod(break_with=errors.EngineDead("the engine died"))
    assert await left_by(fleet, pod, broken) == {}


async def left_by(fleet: Any, pod: FakePod, ask: Ask) -> dict[str, int]:
    """What of ours many requests leave, by name."""
    (pod,) = await fleet.pods(pod)
    gateway = await fleet.gateway(pod)
    stub, url = await fleet.stub(gateway), f"http://127.0.0.1:{gateway.http_port}"

    async def several(count: int) -> None:
        for _ in range(count):
            await ask(stub, url)
        await fleet.until(lambda: gateway.core.admission.in_flight == 0)
        # The last call's task, and Envoy's word of its end.
        await asyncio.sleep(0.2)

    await several(5)
    with all_garbage() as found:
        await several(COUNT)
    ours = Counter(name for name in map(name_of_ours, found) if name)
    # Now and then one is caught on its way.
    return {name: count for name, count in ours.items() if count >= COUNT / 5}


@contextmanager
def all_garbage() -> Iterator[list[Any]]:
    """What a collection would have found, all of it at the end."""
    found: list[Any] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


def name_of_ours(thing: Any) -> str:
    """Empty for what libraries leave, and for clients, which run here too."""
    if isinstance(thing, types.FrameType):
        is_ours = "autoglm/gateway" in thing.f_code.co_filename
        return f"frame of {thing.f_code.co_qualname}" if is_ours else ""
    kind = type(thing)
    is_ours = kind.__module__.startswith(("autoglm.gateway", "autoglm.common"))
    return kind.__qualname__ if is_ours else ""
