"""A pod serves over IPv6, as its own replicas do where a cluster has IPv6 only."""

import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from autoglm import v1
from autoglm.common import rpc
from autoglm.inference.app import CannotStart, PodServer
from autoglm.v1.inference_pb2_grpc import InferenceStub

StartPod = Callable[..., Awaitable[PodServer]]


def on(host: str) -> dict[str, str]:
    return {f"{name}_address": f"{host}:0" for name in ("grpc", "http", "metrics")}


async def served(pod: PodServer, host: str) -> None:
    """Sends a request to each port."""
    async with rpc.channel(f"{host}:{pod.grpc_port}") as channel:
        request = v1.GenerateRequest(model="echo", text="Hello")
        assert (await InferenceStub(channel).Generate(request)).completions
    async with aiohttp.ClientSession() as session:
        for port, path in ((pod.http_port, "/v1/models"), (pod.metrics_port, "/health/ready")):
            async with session.get(f"http://{host}:{port}{path}") as response:
                assert response.status == 200


async def test_a_pod_serves_on_the_ipv6_loopback_address(start_pod: StartPod) -> None:
    await served(await start_pod(**on("[::1]")), "[::1]")


async def test_every_ipv6_address_takes_ipv4_connections_as_well(start_pod: StartPod) -> None:
    pod = await start_pod(**on("[::]"))
    for host in ("[::1]", "127.0.0.1"):
        await served(pod, host)


@pytest.mark.parametrize("name", ["grpc", "http", "metrics"])
async def test_an_address_that_is_taken_is_named_with_its_family(
    start_pod: StartPod, name: str
) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        address = f"[::1]:{taken.getsockname()[1]}"
        with pytest.raises(CannotStart, match=r"cannot listen on \[::1\]:\d+ \(IPv6\): Address"):
            await start_pod(**{f"{name}_address": address})
