"""A pod of the echo engine in this process, on free ports."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from autoglm.common import rpc
from autoglm.inference.app import PodServer
from autoglm.inference.settings import InferenceSettings

ANYWHERE = {f"{name}_address": "127.0.0.1:0" for name in ("grpc", "http", "metrics")}
StartPod = Callable[..., Awaitable[PodServer]]


@pytest.fixture
async def start_pod() -> AsyncIterator[StartPod]:
    pods: list[PodServer] = []

    async def start(**flags: Any) -> PodServer:
        settings = InferenceSettings.load({"engine": "echo", **ANYWHERE, **flags})
        pods.append(PodServer(settings))
        await pods[-1].start()
        return pods[-1]

    yield start
    for pod in pods:
        await pod.close()


@pytest.fixture
async def pod(start_pod: StartPod) -> PodServer:
    return await start_pod()


@pytest.fixture
async def channel(pod: PodServer) -> AsyncIterator[grpc.aio.Channel]:
    async with rpc.channel(f"127.0.0.1:{pod.grpc_port}") as connected:
        yield connected
