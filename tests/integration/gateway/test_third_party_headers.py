"""What a third-party OpenAI server gets to see of a client's headers, on both data planes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.support.rest_stack import fake_server

pytestmark = pytest.mark.timeout(60)
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
# What Envoy itself routes by: a random key of the request, and the server's own address.
ROUTING = {"x-autoglm-call", "x-gateway-destination-endpoint"}
SENT = {
    "anthropic-beta": "one",
    "autoglm-request-info-bin": "AAAA",
    "forwarded": "for=192.0.2.7",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-autoglm-anything": "1",
    "x-autoglm-peer": "192.0.2.7",
    "x-custom": "2",
    "x-envoy-retry-on": "5xx",
    "x-forwarded-for": "192.0.2.7",
    "x-gateway-destination-endpoint": "192.0.2.7:1",
    "x-gateway-model": "m",
    "x-real-ip": "192.0.2.7",
}


async def test_headers_of_our_own_hops_and_the_clients_address_stay_here(
    fleet: Any, plane: str
) -> None:
    received: list[dict[str, str]] = []

    async def respond(request: web.Request) -> web.Response:
        if request.path == "/v1/chat/completions":
            received.append({k.lower(): v for k, v in request.headers.items()})
        await request.read()
        return web.json_response({"data": [{"id": "m", "max_model_len": 64}]})

    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fake_server(respond))
        gateway = await fleet.gateway(ready=1, endpoint=(url,))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        chat = f"http://127.0.0.1:{gateway.http_port}/v1/chat/completions"
        async with session.post(chat, json=HELLO, headers=SENT) as response:
            assert response.status == 200, await response.text()
    (headers,) = received

    assert (headers["anthropic-beta"], headers["x-custom"]) == ("one", "2")
    assert "traceparent" in headers and "192.0.2.7" not in "".join(headers.values())
    internal = ("x-autoglm-", "autoglm-", "x-envoy-", "x-gateway-", "x-forwarded-", "forwarded")
    found = {name for name in headers if name.startswith(internal)}
    assert found - (ROUTING if plane == "envoy" else set()) == set()
