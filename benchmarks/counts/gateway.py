"""A gateway with everything on, between clients and pods without sockets; both data planes.

Everything on: API keys, validation, limits, admission, routing, token replay, metrics, a log line a
request; traces are off, as 99 in 100 requests see them.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from autoglm import v1
from autoglm.common import rpc
from autoglm.common.status import USAGE_TRAILER, write_usage
from autoglm.common.telemetry import JsonFormatter, LineHandler
from autoglm.gateway.admission import Admission
from autoglm.gateway.edges.grpc import GrpcEdge, GrpcParts
from autoglm.gateway.edges.rest import RestEdge, RestParts
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.endpoints.endpoint import Endpoint, Load, Loaded, ModelsDiscovered
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.envoy.access_log import AccessLogService
from autoglm.gateway.envoy.check_edge import CheckEdge
from autoglm.gateway.envoy.exchange import Exchanges, TakeOver
from autoglm.gateway.envoy.upstream import EnvoyUpstream
from autoglm.gateway.identity.identity import Identity
from autoglm.gateway.identity.keys import new_key
from autoglm.gateway.identity.rules import IdentitySources
from autoglm.gateway.limits.metering import Limits
from autoglm.gateway.pipeline import LocalPage, Pipeline, Respond
from autoglm.gateway.proxy.grpc_upstream import GrpcUpstream
from autoglm.gateway.proxy.http_upstream import HttpUpstream
from autoglm.gateway.proxy.proxy import Defaults, Proxy
from autoglm.gateway.request.memory_budget import Memory
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request_telemetry import Observer
from autoglm.gateway.routing import Router
from autoglm.gateway.settings import GatewaySettings
from autoglm.http1.server import Server
from autoglm.http1.server_connection import ServerConnection
from benchmarks.counts.wires import GrpcContext, GrpcPods, HttpClient, HttpPods, one

MODEL = v1.Model(name="m", max_model_len=100_000, engine="fake", resumable=True)
PODS = 8
PROMPT = "What is the gateway? " * 10
STREAM, UNARY = "GenerateStream", "Generate"
_SERVICE = "autoglm.v1.Inference"
_EVENT = (
    b': autoglm-tokens [{"index":0,"ids":[1234]}]\n\n'
    b'data: {"choices":[{"index":0,"text":" token"}]}\n\n'
)
_DONE = b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
_JSON = b'{"choices":[{"index":0,"text":" token","finish_reason":"stop"}]}'


class Rig:
    """One gateway. `chunks` is how many tokens the pods' streams have, one a chunk."""

    def __init__(self, key: str, chunks: int) -> None:
        self.key, self.chunks = key, chunks
        self.grpc_pods = GrpcPods(self._messages, ((USAGE_TRAILER, write_usage(4, 4, ("stop",))),))
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.exchanges = Exchanges()
        self.bounds = Bounds(2**20, 600.0, 3600.0)

    async def start(self, closing: AsyncExitStack, keys: Path, plane: str) -> None:
        settings = GatewaySettings(api_keys_file=str(keys))
        pool, metrics = _pool(), self.metrics
        # Time stands still, so that nothing is due in the middle of a request.
        began = time.monotonic()

        def clock() -> float:
            return began

        identity = Identity(IdentitySources(api_keys_file=str(keys)), metrics.authentications)
        async with AsyncExitStack() as following:
            # Read once, and not followed: that would be work of its own in the middle of counting.
            await identity.start(following)
        limits = Limits("", 1, metrics.rate_limited, metrics.unmetered, clock)
        admission = Admission(pool, settings.admission, metrics, limits.rates.policy_of, clock)
        memory = Memory(settings.request_memory_bytes, admission.retry_after)
        observer = Observer(metrics, lambda name: name in pool.snapshot.models, clock)
        self.http_pods = HttpPods(self._parts)
        closing.push_async_callback(self.http_pods.close)
        upstreams: dict[Any, Any] = {
            "grpc": GrpcUpstream(self.grpc_pods),  # type: ignore[arg-type]  # in place of Channels
            "http": HttpUpstream(self.http_pods),
        }
        if plane == "envoy":
            upstreams = {wire: EnvoyUpstream(upstream) for wire, upstream in upstreams.items()}
        proxy = Proxy(
            pool,
            upstreams,
            settings.retry_policy,
            metrics,
            Router(metrics, Random(1), settings.routing_policy),
            Random(1),
            clock,
            defaults=Defaults(
                settings.stream_timeouts,
                settings.stream_recovery,
                settings.hedging,
                settings.outlier_detection,
            ),
        )
        identify = identity.identify
        self.pipeline = Pipeline(pool, admission, observer, memory, proxy, identify, limits)
        own = TakeOver(self.exchanges, self.pipeline)

        def local(respond: Respond) -> LocalPage:
            return LocalPage(respond, observer, memory, identify)

        self._local = local
        parts = GrpcParts(own, self._local, self._local, lambda: pool.snapshot, 600.0, 3600.0)
        # Made once, as in service.
        self._grpc_handlers = GrpcEdge(parts).handlers()
        self._start_rest(closing, pool, own)
        picker = CheckEdge(self.pipeline, self.exchanges, self.bounds)
        closing.push_async_callback(picker.close)
        self._picker = Server(picker.serve, picker.reject)
        self.ends = AccessLogService(self.exchanges)

    def _start_rest(self, closing: AsyncExitStack, pool: Pool, own: Any) -> None:
        parts = RestParts(
            pipeline=own,
            local=self._local,
            snapshot=lambda: pool.snapshot,
            ready=lambda: (True, {}),
            registry=self.registry,
            bounds=self.bounds,
        )
        edge = RestEdge(parts)
        self._rest = Server(edge.serve, edge.reject)
        self._closing = closing

    def client(self) -> HttpClient:
        client = HttpClient(ServerConnection(self._rest))
        self._closing.callback(client.close)
        return client

    def envoy(self) -> HttpClient:
        """Return Envoy's end of a connection to the picker."""
        envoy = HttpClient(ServerConnection(self._picker))
        self._closing.callback(envoy.close)
        return envoy

    # What clients send.

    def context(self) -> GrpcContext:
        return GrpcContext((("x-api-key", self.key), ("user-agent", "grpc")))

    async def grpc(self, method: str, context: GrpcContext) -> None:
        """One call, as gRPC makes it to the interceptor and the edge."""
        path, metadata = f"/{_SERVICE}/{method}", context.metadata
        details = SimpleNamespace(method=path, invocation_metadata=metadata)
        (handler,) = [h for g in self._grpc_handlers if (h := g.service(details))]

        async def continuation(_: Any) -> Any:
            return handler

        wrapped = await rpc.ErrorInterceptor().intercept_service(continuation, details)
        requests = one(self.generate().SerializeToString())
        if method == UNARY:
            await wrapped.stream_unary(requests, context)
        else:
            await wrapped.stream_stream(requests, context)

    def generate(self) -> v1.GenerateRequest:
        sampling = v1.SamplingParams(max_tokens=max(1, self.chunks))
        return v1.GenerateRequest(model="m", text=PROMPT, sampling_params=sampling)

    def body(self, *, stream: bool) -> bytes:
        body = {
            "model": "m",
            "prompt": PROMPT,
            "max_tokens": max(1, self.chunks),
            "stream": stream,
        }
        return json.dumps(body).encode()

    def request(self, *, stream: bool) -> bytes:
        body = self.body(stream=stream)
        head = (
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"x-api-key: {self.key}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    # Responses of pods.

    def _messages(self) -> Sequence[bytes]:
        chunk = v1.GenerateChunk(text=" token", token_ids=[1234]).SerializeToString()
        usage = v1.Usage(prompt_tokens=4, completion_tokens=self.chunks)
        last = v1.GenerateChunk(finish_reason=v1.FINISH_REASON_STOP, usage=usage)
        return [chunk] * self.chunks + [last.SerializeToString()]

    def _parts(self) -> Sequence[bytes]:
        if not self.chunks:
            return [_head("application/json", f"content-length: {len(_JSON)}"), _JSON]
        events = [_framed(_EVENT)] * self.chunks
        end = _framed(_DONE) + b"0\r\n\r\n"
        return [_head("text/event-stream", "transfer-encoding: chunked"), *events, end]


@asynccontextmanager
async def rig(chunks: int = 0, plane: str = "embedded") -> AsyncIterator[Rig]:
    key, entry = new_key("acme")
    with tempfile.TemporaryDirectory() as scratch, _logs():
        keys = Path(scratch) / "keys.json"
        keys.write_bytes(msgspec.json.encode({"keys": [entry]}))
        async with AsyncExitStack() as closing:
            made = Rig(key, chunks)
            await made.start(closing, keys, plane)
            yield made


def _pool() -> Pool:
    pool, now = Pool(Random(1)), time.monotonic()
    hosts = [f"10.0.0.{number}" for number in range(1, PODS + 1)]
    endpoints = [Endpoint(f"grpc://{host}:50051", "pod", host, 50051) for host in hosts]
    pool.change_endpoints((), endpoints, now)
    for endpoint in endpoints:
        pool.apply(endpoint.url, ModelsDiscovered((MODEL,)), now)
        load = Load(max_num_seqs=64, http_port=8000, kv_tokens=400_000)
        pool.apply(endpoint.url, Loaded(load), now)
    return pool


@contextmanager
def _logs() -> Iterator[None]:
    """Lines are made as they are in service, and go nowhere."""
    log, handler = logging.getLogger("autoglm"), LineHandler(io.StringIO())
    handler.setFormatter(JsonFormatter())
    before = log.level, log.propagate, log.handlers
    log.setLevel(logging.INFO)
    log.propagate, log.handlers = False, [handler]
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate, log.handlers = before[1], before[2]


def _head(kind: str, length: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n\r\n".encode()


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
