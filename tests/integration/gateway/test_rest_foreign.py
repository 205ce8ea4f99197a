"""An OpenAI server as an endpoint: followed by polling, served by REST."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
from aiohttp import web
from tests.support.rest_stack import fake_server

from autoglm.gateway.endpoints.endpoint import Endpoint, EndpointView
from autoglm.gateway.endpoints.openai_watch import OpenAIWatch
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.static_discovery import parse_target
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.gateway.proxy.http_upstream import client_pool

CARDS = {"object": "list", "data": [{"id": "m", "max_model_len": 64}]}


@dataclass
class Server:
    """What the fake says now."""

    health: int = 200
    models: int = 200
    metrics: str = "vllm:num_requests_running 2\n"
    keys: set[str] = field(default_factory=set)

    async def respond(self, request: web.Request) -> web.Response:
        self.keys.add(request.headers.get("authorization", ""))
        if request.path == "/base/health":
            return web.Response(status=self.health)
        if request.path == "/base/v1/models":
            return web.Response(status=self.models, text=json.dumps(CARDS))
        assert request.path == "/base/metrics"
        return web.Response(text=self.metrics)


@dataclass
class Followed:
    pool: Pool
    changed: asyncio.Event

    async def until_phase(self, phase: str) -> EndpointView:
        async with asyncio.timeout(30):
            while True:
                (view,) = self.pool.snapshot.endpoints
                if view.state.phase == phase:
                    return view
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def followed(server: Server, api_key: str = "") -> AsyncIterator[Followed]:
    changed = asyncio.Event()
    pool = Pool(Random(1), lambda *_: changed.set())
    async with fake_server(server.respond) as url, AsyncExitStack() as closing:
        connections = client_pool()
        closing.push_async_callback(connections.close)
        endpoint = parse_target(f"{url}/base/v1")
        assert isinstance(endpoint, Endpoint)
        pool.change_endpoints((), [endpoint], time.monotonic())
        watching = asyncio.create_task(
            OpenAIWatch(pool, connections, UpstreamKey(api_key))(endpoint)
        )
        yield Followed(pool, changed)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_good_server_becomes_routable_for_rest_only() -> None:
    server = Server()
    async with followed(server, api_key="k") as state:
        view = await state.until_phase("ready")
    assert (view.speaks("http"), view.speaks("grpc")) == (True, False)
    assert view.state.models[0].max_model_len == 64
    assert view.live.load.running == 2
    assert server.keys == {"Bearer k"}


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Server(health=503), "/health returned 503"),
        (
            Server(models=401),
            "it returned 401; put a key that it accepts in --upstream-api-key-file",
        ),
        (Server(models=404), "/v1/models returned 404; it must be an OpenAI server's URL"),
    ],
)
async def test_a_bad_server_is_kept_out_and_says_why(server: Server, why: str) -> None:
    async with followed(server) as state:
        view = await state.until_phase("ejected")
        assert view.state.why == why
        server.health = server.models = 200
        await state.until_phase("ready")


async def test_a_server_without_health_or_metrics_pages_is_fine() -> None:
    async with followed(Server(health=404, metrics="")) as state:
        await state.until_phase("ready")
