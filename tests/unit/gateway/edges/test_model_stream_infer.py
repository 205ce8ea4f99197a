from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.responses import forward

from autoglm.common import errors
from autoglm.gateway.edges.model_stream_infer import respond_to_stream
from autoglm.gateway.request.request import Deliver, GatewayRequest, RequestRecord, Response

pytestmark = pytest.mark.looptime
CHUNKS = 100


def call() -> GatewayRequest:
    return GatewayRequest("grpc", "ModelStreamInfer", "", b"", "id", 0.0, 1000.0)


async def handler(_: GatewayRequest, __: RequestRecord, deliver: Deliver) -> None:
    await deliver(Response(forward([b"chunk"] * CHUNKS)))


async def request_of(_: bytes) -> GatewayRequest:
    return call()


async def one(problem: Exception | None = None) -> AsyncIterator[bytes]:
    yield b""
    if problem is not None:
        raise problem


async def test_client_that_leaves_with_chunks_waiting_ends_the_stream() -> None:
    stream: Any = respond_to_stream(one(), request_of, handler)
    assert await anext(stream) == b"chunk"
    # As many wait as may.
    await asyncio.sleep(1)
    async with asyncio.timeout(5):
        await stream.aclose()


async def test_what_is_wrong_with_a_stream_is_reported_after_responses_that_have_begun() -> None:
    got = 0
    with pytest.raises(errors.QueueFull):
        async for _ in respond_to_stream(one(errors.QueueFull("full")), request_of, handler):
            got += 1
    assert got == CHUNKS
