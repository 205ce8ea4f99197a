"""Garbage on the gRPC port: INVALID_ARGUMENT or NOT_FOUND, and no other request notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.support.responses import forward
from tests.support.soak import examples

from autoglm import v1
from autoglm.common import rpc
from autoglm.gateway.admission import Admission, AdmissionSettings
from autoglm.gateway.edges.grpc import GrpcEdge, GrpcParts
from autoglm.gateway.endpoints.endpoint import (
    Endpoint,
    EndpointView,
    Load,
    Loaded,
    ModelsDiscovered,
)
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.pipeline import LocalPage, Pipeline
from autoglm.gateway.proxy.proxy import Proxy
from autoglm.gateway.proxy.retry_budget import RetryPolicy
from autoglm.gateway.proxy.upstream import Fallbacks, no_fallbacks
from autoglm.gateway.request.grpc_methods import METHODS
from autoglm.gateway.request.memory_budget import Memory
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest, Response
from autoglm.gateway.request_telemetry import Observer
from autoglm.gateway.routing import Router

FUZZ = settings(
    max_examples=examples(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
EXPECTED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
PIECES = [b"one", b"two", b"three"]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def upstream(
    call: GatewayRequest,
    endpoint: EndpointView,
    headers: Mapping[str, str],
    timeout: float,
    fallbacks: Fallbacks = no_fallbacks,
) -> Response:
    """A pod that responds to everything with the same bytes."""
    return Response(forward([part for piece in PIECES for part in (0.0, piece)]))


async def _open() -> AsyncIterator[grpc.aio.Channel]:
    pool, metrics = Pool(Random(1)), Metrics(CollectorRegistry())
    pool.change_endpoints((), [Endpoint("grpc://pod:1", "pod", "pod", 1)], time.monotonic())
    pool.apply(
        "grpc://pod:1", ModelsDiscovered((v1.Model(name="m", max_model_len=64),)), time.monotonic()
    )
    pool.apply("grpc://pod:1", Loaded(Load()), time.monotonic())
    observer = Observer(metrics, lambda _: True)
    admission = Admission(pool, AdmissionSettings(100), metrics)
    memory = Memory(2**30)
    router = Router(metrics, Random(1), "LeastLoaded")
    proxy = Proxy(pool, {"grpc": upstream}, RetryPolicy(), metrics, router, Random(1))
    edge = GrpcEdge(
        GrpcParts(
            pipeline=Pipeline(pool, admission, observer, memory, proxy),
            local=lambda respond: LocalPage(respond, observer, memory),
            open=lambda respond: LocalPage(respond, observer, memory),
            snapshot=lambda: pool.snapshot,
            default_timeout_seconds=10.0,
            max_timeout_seconds=10.0,
        )
    )
    server = rpc.server()
    server.add_generic_rpc_handlers(tuple(edge.handlers()))
    port = rpc.bind(server, "127.0.0.1:0")
    await server.start()
    async with rpc.channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Run, grpc.aio.Channel]]:
    with asyncio.Runner() as runner:
        opening = asynccontextmanager(_open)()
        yield runner.run, runner.run(opening.__aenter__())
        runner.run(opening.__aexit__(None, None, None))


async def call(stub: grpc.aio.Channel, index: int, payload: bytes) -> list[bytes]:
    # Raw bytes both ways, which the types of stubs do not foresee.
    channel: Any = stub
    method = METHODS[index]
    if method.bidi:
        both = channel.stream_stream(method.path)(iter([payload]))
        return [message async for message in both]
    if method.streaming:
        return [message async for message in channel.unary_stream(method.path)(payload)]
    return [await channel.unary_unary(method.path)(payload)]


async def beside_a_stream(channel: grpc.aio.Channel, index: int, payload: bytes) -> None:
    good = v1.GenerateRequest(model="m", text="Hello").SerializeToString()
    generate = next(i for i, m in enumerate(METHODS) if m.name == "GenerateStream")
    garbage, neighbour = await asyncio.gather(
        call(channel, index, payload), call(channel, generate, good), return_exceptions=True
    )
    assert neighbour == PIECES
    if isinstance(garbage, grpc.aio.AioRpcError):
        assert garbage.code() in EXPECTED, garbage
    else:
        assert not isinstance(garbage, BaseException), garbage


@FUZZ
@given(index=st.integers(0, len(METHODS) - 1), payload=st.binary(max_size=200))
def test_arbitrary_bytes_are_a_clean_error(
    parts: tuple[Run, grpc.aio.Channel], index: int, payload: bytes
) -> None:
    run, channel = parts
    run(beside_a_stream(channel, index, payload))


@FUZZ
@given(
    index=st.integers(0, len(METHODS) - 1),
    payload=st.binary(max_size=100),
    at=st.integers(0, 30),
)
def test_a_good_message_with_garbage_in_it_is_served_or_a_clean_error(
    parts: tuple[Run, grpc.aio.Channel], index: int, payload: bytes, at: int
) -> None:
    run, channel = parts
    good = v1.GenerateRequest(model="m", text="Hello", priority=3).SerializeToString()
    run(beside_a_stream(channel, index, good[:at] + payload + good[at:]))
