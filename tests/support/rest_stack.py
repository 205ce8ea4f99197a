"""The gateway's REST side over fake OpenAI servers, in one event loop, on free loopback ports.

For tests of the edge, its proxy and its layers. Nothing watches the fakes: they are routable from
the start, until a proxy reports otherwise.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry

from autoglm import v1
from autoglm.gateway.admission import Admission, AdmissionSettings
from autoglm.gateway.edges.cors import Cors
from autoglm.gateway.edges.rest import RestEdge, RestParts
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.endpoints.endpoint import Endpoint, Load, Loaded, ModelsDiscovered
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.envoy.exchange import Exchanges, TakeOver
from autoglm.gateway.envoy.plane import EnvoyPlane
from autoglm.gateway.envoy.upstream import EnvoyUpstream
from autoglm.gateway.pipeline import Identify, LocalPage, Pipeline
from autoglm.gateway.proxy.http_upstream import HttpUpstream, client_pool
from autoglm.gateway.proxy.proxy import Proxy
from autoglm.gateway.proxy.retry_budget import RetryPolicy
from autoglm.gateway.request.memory_budget import Memory
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request_telemetry import Observer
from autoglm.gateway.routing import Router
from autoglm.gateway.settings import GatewaySettings
from autoglm.http1.rules import Limits
from autoglm.http1.server import Server

MODEL = v1.Model(name="m", aliases=["alias"], max_model_len=100, max_token_bytes=16)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
_MEMORY_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class RestStack:
    """`url` is the gateway's; `client` is a session of its own; `endpoints` are the fakes' URLs."""

    url: str
    client: ClientSession
    pool: Pool
    admission: Admission
    registry: CollectorRegistry
    server: Server
    endpoints: tuple[str, ...]


@asynccontextmanager
async def fake_server(answer: Answer) -> AsyncIterator[str]:
    """An HTTP server with this response to every request; its URL."""
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def rest_stack(
    *answers: Answer,
    model: v1.Model = MODEL,
    max_body_bytes: int = 2**20,
    timeout: float = 10.0,
    identify: Identify | None = None,
    memory: Memory | None = None,
    max_connections: int = 100,
    plane: str = "embedded",
    allowed_origins: tuple[str, ...] = (),
) -> AsyncIterator[RestStack]:
    """A gateway over one fake server for each response, with one of the data planes in front."""
    async with AsyncExitStack() as open_parts:
        enter = open_parts.enter_async_context
        urls = [await enter(fake_server(answer)) for answer in answers]
        pool = _pool(urls, model)
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        admission = Admission(pool, AdmissionSettings(100), metrics)
        observer = Observer(metrics, lambda name: name in pool.snapshot.models)
        memory = memory or Memory(2**30)
        connections = client_pool()
        open_parts.push_async_callback(connections.close)
        http = HttpUpstream(connections)
        upstream = EnvoyUpstream(http) if plane == "envoy" else http
        router = Router(metrics, Random(1), "LeastLoaded")
        proxy = Proxy(pool, {"http": upstream}, RetryPolicy(), metrics, router, Random(1))
        pipeline = Pipeline(pool, admission, observer, memory, proxy, identify)
        exchanges, bounds = Exchanges(), Bounds(max_body_bytes, timeout, 3600.0)
        parts = RestParts(
            pipeline=TakeOver(exchanges, pipeline),
            local=lambda respond: LocalPage(respond, observer, memory, identify),
            snapshot=lambda: pool.snapshot,
            ready=lambda: (pool.is_ready, {}),
            registry=registry,
            bounds=bounds,
            cors=Cors(allowed_origins if plane == "embedded" else ()),
        )
        edge = RestEdge(parts)
        server = Server(edge.serve, edge.reject, limits=Limits(max_connections, max_connections))
        open_parts.push_async_callback(server.stop, 5.0)
        if plane == "envoy":
            envoy = _envoy_plane(bounds, allowed_origins)
            open_parts.push_async_callback(envoy.close)
            await server.start_unix(envoy.sockets.http)
            port = (await envoy.start(pipeline, exchanges, bounds))["http"]
        else:
            port = await server.start("127.0.0.1", 0)
        client = await enter(ClientSession(f"http://127.0.0.1:{port}"))
        yield RestStack(
            f"http://127.0.0.1:{port}", client, pool, admission, registry, server, tuple(urls)
        )


def _envoy_plane(bounds: Bounds, allowed_origins: tuple[str, ...]) -> EnvoyPlane:
    free = "127.0.0.1:0"
    return EnvoyPlane(
        GatewaySettings(
            grpc_address=free,
            http_address=free,
            max_body_bytes=bounds.max_body_bytes,
            default_timeout_seconds=bounds.default_timeout_seconds,
            allowed_origins=allowed_origins,
        ).with_memory(_MEMORY_BYTES),
    )


def _pool(urls: list[str], model: v1.Model) -> Pool:
    pool, now = Pool(Random(1)), time.monotonic()
    endpoints = [Endpoint(url, "openai", "127.0.0.1", int(url.rpartition(":")[2])) for url in urls]
    pool.change_endpoints((), endpoints, now)
    for url in urls:
        pool.apply(url, ModelsDiscovered((model,)), now)
        pool.apply(url, Loaded(Load()), now)
    return pool
