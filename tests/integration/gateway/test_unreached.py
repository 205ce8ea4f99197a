"""A model that an endpoint may serve that was never reached: worth a retry, not unknown."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import grpc
import pytest

from autoglm import v1
from autoglm.common import errors, status
from autoglm.testing.fake_pod import FakePod

CHAT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def unused_address() -> Iterator[str]:
    """One at which connections are refused; no other program can take it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def http_error(port: int, path: str, body: object = None) -> tuple[int, str | None, str]:
    method = "POST" if body else "GET"
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
        client.request(method, path, json=body) as response,
    ):
        answer = await response.json()
        return response.status, response.headers.get("retry-after"), answer["error"]["message"]


async def test_a_model_is_unknown_only_once_every_endpoint_was_reached(
    fleet: Any, unused_address: str
) -> None:
    (pod,) = await fleet.pods(FakePod(model="here"))
    dead = f"grpc://{unused_address}"
    gateway = await fleet.gateway(pod, ready=1, endpoint=(pod.url, dead))
    stub = await fleet.stub(gateway)
    asked = CHAT | {"model": "there"}
    for path, body in (("/v1/chat/completions", asked), ("/v1/models/there", None)):
        code, retry_after, message = await http_error(gateway.http_port, path, body)
        assert (code, retry_after) == (503, "1"), message
        assert "'there'" in message and "1 more could not be reached" in message
        assert dead not in message
    for call in (
        stub.Generate(v1.GenerateRequest(model="there", text="x")),
        stub.GetModel(v1.GetModelRequest(name="there")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = status.from_grpc(caught.value)
        assert isinstance(error, errors.NoReadyEndpoint) and error.retry_after == 1.0
    # What is wrong with a request for a model that was found is known.
    wrong = {"model": "here", "messages": []}
    assert (await http_error(gateway.http_port, "/v1/chat/completions", wrong))[0] == 400


async def test_a_model_of_no_endpoint_is_unknown_once_all_were_reached(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod(model="here"))
    gateway = await fleet.gateway(pod)
    asked = CHAT | {"model": "there"}
    code, retry_after, message = await http_error(gateway.http_port, "/v1/chat/completions", asked)
    assert (code, retry_after) == (404, None) and "'here'" in message


async def test_an_endpoint_that_was_reached_once_is_known_while_it_is_away(fleet: Any) -> None:
    (pod, other) = await fleet.pods(FakePod(model="here"), FakePod(model="gone"))
    gateway = await fleet.gateway(pod, other)
    await other.__aexit__(None, None, None)
    await fleet.until(lambda: fleet.routable(gateway) == 1)
    asked = CHAT | {"model": "there"}
    assert (await http_error(gateway.http_port, "/v1/chat/completions", asked))[0] == 404
    asked = CHAT | {"model": "gone"}
    assert (await http_error(gateway.http_port, "/v1/chat/completions", asked))[0] == 503


@pytest.mark.plane("embedded")
async def test_why_a_gateway_is_not_ready_is_on_the_admin_port_alone(
    fleet: Any, unused_address: str
) -> None:
    dead = f"grpc://{unused_address}"
    gateway = await fleet.gateway(endpoint=(dead,))
    pages = {}
    async with aiohttp.ClientSession() as client:
        for port in (gateway.admin_port, gateway.http_port):
            async with client.get(f"http://127.0.0.1:{port}/health/ready") as response:
                pages[port] = response.status, await response.json()
    status_code, admin = pages[gateway.admin_port]
    assert (status_code, admin["listening"]) == (503, True)
    assert admin["reasons"][0] == "no endpoint is ready"
    assert admin["reasons"][1].startswith(f"{dead} is ")
    assert pages[gateway.http_port] == (
        503,
        {"ready": False, "draining": False, "routable_endpoints": 0},
    )
