"""A gateway and fake pods in this process, on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry

from autoglm.common import rpc
from autoglm.gateway.app import Gateway
from autoglm.gateway.settings import GatewaySettings
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub

PATIENCE_SECONDS = 30.0
FREE = "127.0.0.1:0"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with `plane` runs over both data planes, unless it is about one of them."""
    if "plane" in metafunc.fixturenames:
        one = metafunc.definition.get_closest_marker("plane")
        planes = (one.args[0],) if one else ("embedded", "envoy")
        metafunc.parametrize("plane", planes, scope="module")


class Fleet:
    """Starts pods and gateways, and ends them with the test."""

    def __init__(self, stack: AsyncExitStack, plane: str) -> None:
        self._stack = stack
        self._plane = plane

    async def pods(self, *pods: FakePod) -> tuple[FakePod, ...]:
        return tuple([await self._stack.enter_async_context(pod) for pod in pods])

    async def gateway(
        self, *pods: FakePod, ready: int | None = None, **settings: object
    ) -> Gateway:
        """Listening, with all of the pods (or `ready` of them) in its pool."""
        registry = CollectorRegistry()
        values = {
            "grpc_address": FREE,
            "http_address": FREE,
            "metrics_address": FREE,
            "data_plane": self._plane,
            "endpoint": tuple(pod.url for pod in pods),
            "shutdown_grace_seconds": 2.0,
            "drain_delay_seconds": 0.0,
        }
        gateway = Gateway(GatewaySettings.model_validate(values | settings), registry)
        self._stack.push_async_callback(gateway.close)
        await gateway.start()
        await self.until(lambda: self.routable(gateway) == (len(pods) if ready is None else ready))
        return gateway

    async def stub(self, gateway: Gateway) -> InferenceStub:
        channel = rpc.channel(f"127.0.0.1:{gateway.grpc_port}")
        await self._stack.enter_async_context(channel)
        return InferenceStub(channel)

    @staticmethod
    def routable(gateway: Gateway) -> int:
        return sum(view.is_routable for view in gateway.core.pool.views)

    @staticmethod
    def in_flight(gateway: Gateway) -> int:
        return sum(view.live.in_flight for view in gateway.core.pool.views)

    @staticmethod
    async def until(fact: Callable[[], bool]) -> None:
        """Waits for a fact that other tasks bring about; fails the test when it does not come."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            # Facts of sockets and several tasks, which share no event to wait for.
            while not fact():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture
async def fleet(plane: str) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield Fleet(stack, plane)
