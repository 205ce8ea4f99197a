"""The gateway serves over IPv6: on ::1, and on every address of both families by [::]."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
import pytest

from autoglm import v1
from autoglm.common import rpc
from autoglm.gateway.app import AddressInUse, Gateway
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(60)


def on(host: str) -> dict[str, str]:
    """The settings of all ports on a host, which is no loopback address by name."""
    ports = {f"{name}_address": f"{host}:0" for name in ("grpc", "http", "metrics")}
    return ports | {"allow_anonymous": "true"}


async def served(gateway: Gateway, host: str) -> None:
    """Sends a request to each port."""
    async with rpc.channel(f"{host}:{gateway.grpc_port}") as channel:
        request = v1.GenerateRequest(model="fake", text="Hello")
        assert (await InferenceStub(channel).Generate(request)).completions
    async with aiohttp.ClientSession() as session:
        for port, path in (
            (gateway.http_port, "/v1/models"),
            (gateway.admin_port, "/health/ready"),
        ):
            async with session.get(f"http://{host}:{port}{path}") as response:
                assert response.status == 200


async def test_the_gateway_serves_on_the_ipv6_loopback_address(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    await served(await fleet.gateway(pod, **on("[::1]")), "[::1]")


async def test_every_ipv6_address_takes_ipv4_connections_as_well(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, **on("[::]"))
    for host in ("[::1]", "127.0.0.1"):
        await served(gateway, host)


@pytest.mark.plane("embedded", "ports are taken before a plane starts")
async def test_an_address_that_is_taken_is_named_with_its_family(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        address = f"[::1]:{taken.getsockname()[1]}"
        for setting in ("http_address", "grpc_address", "metrics_address"):
            with pytest.raises(AddressInUse, match=r"cannot listen on \[::1\]:\d+ \(IPv6\): "):
                await fleet.gateway(pod, **{setting: address})
