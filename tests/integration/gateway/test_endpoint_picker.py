"""The endpoint picker behind a real Envoy that is not ours, configured as other gateways do.

Not Istio, Envoy Gateway or kgateway themselves: their Envoy, with the filter, the modes and the
clusters that they give it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import msgspec
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from autoglm import v1
from autoglm.client import AsyncClient
from autoglm.common import errors, status
from autoglm.gateway.app import Gateway
from autoglm.gateway.envoy import program
from autoglm.gateway.envoy.config import Sockets
from autoglm.gateway.identity.keys import new_key
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub
from autoglm.validation.routing_hint import HINT_METADATA

pytestmark = [pytest.mark.plane("embedded", "the picker stands beside it"), pytest.mark.timeout(60)]
TYPE = "type.googleapis.com/envoy"
DESTINATION = "x-gateway-destination-endpoint"
ASK = v1.GenerateRequest(model="fake", text="Hello")
CHAT = "/v1/chat/completions"
HELLO = {"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}
BIG = 300_000
RETRIES = {
    "retry_on": "connect-failure,retriable-status-codes",
    "retriable_status_codes": [503],
    "num_retries": 1,
}


@dataclass
class RestPod:
    """The REST port of a pod: says which one it is, or streams, or sends a long response."""

    name: str
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    left: int = 0
    status: int = 200
    is_mute: bool = False
    answer_bytes: int = 0

    async def respond(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(({k.lower(): v for k, v in request.headers.items()}, body))
        if self.is_mute:
            await self._wait()
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        if json.loads(body).get("stream"):
            return await self._stream(request)
        usage = {"prompt_tokens": 2, "completion_tokens": 3}
        return web.json_response({"pod": self.name, "usage": usage, "pad": "x" * self.answer_bytes})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await self._wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _wait(self) -> None:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise


@dataclass
class Pod:
    grpc: FakePod
    rest: RestPod

    @property
    def in_rest(self) -> str:
        return f"127.0.0.1:{self.grpc.http_port}"

    @property
    def in_grpc(self) -> str:
        return f"127.0.0.1:{self.grpc.port}"


@dataclass
class Site:
    """Two pods, a gateway with its picker, and a third-party Envoy in front."""

    gateway: Gateway
    pods: tuple[Pod, Pod]
    port: int
    session: aiohttp.ClientSession
    stub: Any
    fleet: Any

    def post(self, body: Any = HELLO, **headers: str) -> Any:
        return self.session.post(CHAT, json=body, headers=headers)

    async def idle(self) -> None:
        """Nothing is held any more."""
        core = self.gateway.core
        await self.fleet.until(
            lambda: (
                self.fleet.in_flight(self.gateway)
                == core.admission.in_flight
                == core.memory.held
                == 0
            )
        )


def destination(by: str, pods: tuple[Pod, Pod], wire: str) -> dict[str, Any]:
    """A cluster as gateways make it of an InferencePool."""
    options: dict[str, Any] = (
        {"http2_protocol_options": {}} if wire == "grpc" else {"http_protocol_options": {}}
    )
    common: dict[str, Any] = {
        "name": f"pods-{wire}",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": options,
            }
        },
    }
    metadata = {"key": "envoy.lb", "path": [{"key": DESTINATION}]}
    if by == "override_host":
        return common | _override_host(metadata, pods, wire)
    found = (
        {"metadata_key": metadata}
        if by == "metadata"
        else {"use_http_header": True, "http_header_name": DESTINATION}
    )
    return common | {
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": found,
    }


def _override_host(metadata: Any, pods: tuple[Pod, Pod], wire: str) -> dict[str, Any]:
    round_robin = {
        "typed_extension_config": {
            "name": "envoy.load_balancing_policies.round_robin",
            "typed_config": {
                "@type": f"{TYPE}.extensions.load_balancing_policies.round_robin.v3.RoundRobin"
            },
        }
    }
    policy = {
        "@type": f"{TYPE}.extensions.load_balancing_policies.override_host.v3.OverrideHost",
        "override_host_sources": [{"metadata": metadata}],
        "fallback_policy": {"policies": [round_robin]},
        # Reports which pod has served in the end.
        "selected_host_key": {"key": "envoy.lb", "path": [{"key": f"{DESTINATION}-served"}]},
    }
    ports = (pod.grpc.port if wire == "grpc" else pod.grpc.http_port for pod in pods)
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        for port in ports
    ]
    return {
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": f"pods-{wire}",
            "endpoints": [{"lb_endpoints": hosts}],
        },
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.override_host",
                        "typed_config": policy,
                    }
                }
            ]
        },
    }


def ext_proc(body_mode: str) -> dict[str, Any]:
    kind = f"{TYPE}.extensions.filters.http.ext_proc.v3.ExternalProcessor"
    return {
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": kind,
            "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
            "processing_mode": {
                "request_header_mode": "SEND",
                "response_header_mode": "SEND",
                "request_body_mode": body_mode,
                "response_body_mode": "FULL_DUPLEX_STREAMED",
                "request_trailer_mode": "SEND" if body_mode != "BUFFERED" else "SKIP",
                "response_trailer_mode": "SEND",
            },
            # The default. In mode FULL_DUPLEX_STREAMED it says nothing.
            "message_timeout": "0.2s",
            "metadata_options": {
                "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
                "receiving_namespaces": {"untyped": ["envoy.lb"]},
            },
        },
    }


def subset_from_header() -> dict[str, Any]:
    """Stands for whatever in a gateway narrows the choice."""
    kind = f"{TYPE}.extensions.filters.http.header_to_metadata.v3.Config"
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": kind,
            "request_rules": [
                {
                    "header": "x-subset",
                    "on_header_present": {
                        "metadata_namespace": "envoy.lb.subset_hint",
                        "key": f"{DESTINATION}-subset",
                        "type": "STRING",
                    },
                    "remove": True,
                }
            ],
        },
    }


def picker_cluster(port: int) -> dict[str, Any]:
    where = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": "picker",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "picker",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2"]},
            },
        },
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "grpc_health_check": {
                    "service_name": "envoy.service.ext_proc.v3.ExternalProcessor"
                },
            }
        ],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def proxy(
    gateway: Gateway, pods: tuple[Pod, Pod], by: str, directory: Path, body_mode: str
) -> dict[str, Any]:
    manager = f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    is_grpc = {
        "headers": [{"name": "content-type", "string_match": {"prefix": "application/grpc"}}]
    }
    routes = [
        {
            "match": {"prefix": "/"} | match,
            "route": {"cluster": f"pods-{wire}", "timeout": "0s", "retry_policy": RETRIES},
        }
        for wire, match in (("grpc", is_grpc), ("http", {}))
    ]
    router = f"{TYPE}.extensions.filters.http.router.v3.Router"
    filters = [
        subset_from_header(),
        ext_proc(body_mode),
        {"name": "envoy.filters.http.router", "typed_config": {"@type": router}},
    ]
    hcm = {
        "@type": manager,
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "http_filters": filters,
        "route_config": {
            "name": "r",
            "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}],
        },
    }
    name = "envoy.filters.network.http_connection_manager"
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": name, "typed_config": hcm}]}],
    }
    return {
        "admin": {"address": {"pipe": {"path": str(directory / "admin"), "mode": 0o600}}},
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                picker_cluster(gateway.picker_port),
                destination(by, pods, "http"),
                destination(by, pods, "grpc"),
            ],
        },
    }


async def pod(stack: AsyncExitStack, name: str) -> Pod:
    rest = RestPod(name)
    app = web.Application(client_max_size=2**24)
    app.router.add_post(CHAT, rest.respond)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    where = web.TCPSite(runner, "127.0.0.1", 0)
    await where.start()
    port = runner.addresses[0][1]
    fake = await stack.enter_async_context(FakePod(http_port=port))
    return Pod(fake, rest)


class Sites:
    def __init__(self, stack: AsyncExitStack, fleet: Any, by: str, directory: Path) -> None:
        self._stack, self._fleet, self._by, self._directory = stack, fleet, by, directory

    async def __call__(self, body_mode: str = "FULL_DUPLEX_STREAMED", **settings: Any) -> Site:
        stack = self._stack
        pods = (await pod(stack, "first"), await pod(stack, "second"))
        gateway = await self._fleet.gateway(
            *(one.grpc for one in pods), endpoint_picker_address="127.0.0.1:0", **settings
        )
        config = proxy(gateway, pods, self._by, self._directory, body_mode)
        envoy = await program.Envoy.start(
            program.find(), json.dumps(config), Sockets(self._directory), 1
        )
        stack.push_async_callback(envoy.stop)
        port = (await envoy.admin.ports())["in"]
        session = aiohttp.ClientSession(f"http://127.0.0.1:{port}")
        await stack.enter_async_context(session)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        await stack.enter_async_context(channel)
        stub: Any = InferenceStub(channel)
        return Site(gateway, pods, port, session, stub, self._fleet)


@pytest.fixture(params=["metadata", "header", "override_host"])
async def site(request: Any, fleet: Any, tmp_path: Path) -> AsyncIterator[Sites]:
    async with AsyncExitStack() as stack:
        yield Sites(stack, fleet, request.param, tmp_path)


@pytest.fixture
async def list_site(fleet: Any, tmp_path: Path) -> AsyncIterator[Sites]:
    """Whose retries go down a list of pods."""
    async with AsyncExitStack() as stack:
        yield Sites(stack, fleet, "override_host", tmp_path)


@pytest.fixture
async def one_site(fleet: Any, tmp_path: Path) -> AsyncIterator[Sites]:
    """Where the way to the pod makes no difference."""
    async with AsyncExitStack() as stack:
        yield Sites(stack, fleet, "metadata", tmp_path)


async def test_rest_and_grpc_requests_reach_the_pods(site: Sites) -> None:
    here = await site()
    async with here.post() as answer:
        assert (answer.status, (await answer.json())["pod"]) in ((200, "first"), (200, "second"))
    response = await here.stub.Generate(ASK)
    assert response.completions[0].text == "Hello there."
    pieces = [chunk.text async for chunk in here.stub.GenerateStream(ASK)]
    assert "".join(pieces) == "Hello there."
    await here.idle()


async def test_the_pod_gets_the_request_as_the_client_sent_it(site: Sites) -> None:
    here = await site()
    text = "x" * BIG
    body = HELLO | {"messages": [{"role": "user", "content": text}]}
    async with here.post(body, **{"x-mine": "1"}) as answer:
        assert answer.status == 200, await answer.text()
    ((headers, received),) = (seen for one in here.pods for seen in one.rest.seen)
    assert json.loads(received) == body
    assert headers["x-mine"] == "1" and headers["x-request-id"]
    await here.stub.Generate(v1.GenerateRequest(model="fake", text=text))
    (there,) = (seen for one in here.pods for seen in one.grpc.received)
    assert there.request == v1.GenerateRequest(model="fake", text=text)
    await here.idle()


async def test_long_responses_come_whole(site: Sites) -> None:
    here = await site()
    for one in here.pods:
        one.rest.answer_bytes, one.grpc.text = BIG, "y" * BIG
    async with here.post() as answer:
        assert (await answer.json())["pad"] == "x" * BIG
    assert (await here.stub.Generate(ASK)).completions[0].text == "y" * BIG
    await here.idle()


async def test_only_what_the_proxy_allows_is_picked(site: Sites) -> None:
    here = await site()
    second = here.pods[1]
    for _ in range(4):
        async with here.post(**{"x-subset": f"127.0.0.9:1,{second.in_rest}"}) as answer:
            assert (await answer.json())["pod"] == "second"
        await here.stub.Generate(ASK, metadata=(("x-subset", second.in_grpc),))
    assert len(second.grpc.received) == 4 and not here.pods[0].grpc.received
    await here.idle()


@pytest.mark.parametrize("allowed", ["127.0.0.9:1", ","])
async def test_nothing_allowed_is_unavailable_at_once(one_site: Sites, allowed: str) -> None:
    here = await one_site()
    async with here.post(**{"x-subset": allowed}) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "no_ready_endpoint"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.Generate(ASK, metadata=(("x-subset", allowed),))
    assert isinstance(status.from_grpc(caught.value), errors.NoReadyEndpoint)
    await here.idle()


async def test_a_stream_holds_its_place_until_its_end(site: Sites) -> None:
    here = await site()
    async with here.post(HELLO | {"stream": True}) as answer:
        assert await answer.content.readline() == b"data: 1\n"
        assert here.fleet.in_flight(here.gateway) == 1
        for one in here.pods:
            one.rest.gate.set()
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    await here.idle()


async def test_a_client_that_leaves_frees_its_place(one_site: Sites) -> None:
    here = await one_site()
    for one in here.pods:
        one.grpc.open_gate.clear()
    stream = here.stub.GenerateStream(ASK)
    await stream.read()
    async with here.post(HELLO | {"stream": True}) as answer:
        await answer.content.readline()
        assert here.fleet.in_flight(here.gateway) == 2
        answer.close()
    stream.cancel()
    await here.idle()
    # Envoy ends its own requests to the pods.
    await here.fleet.until(
        lambda: (
            sum(one.rest.left for one in here.pods)
            == sum(one.grpc.cancelled for one in here.pods)
            == 1
        )
    )


async def test_a_client_that_leaves_before_its_turn_frees_its_place(one_site: Sites) -> None:
    here = await one_site(pod_waiting_requests=0)
    for one in here.pods:
        one.grpc.update(max_num_seqs=1)
        one.grpc.open_gate.clear()
    core = here.gateway.core
    await here.fleet.until(
        lambda: all(view.live.load.max_num_seqs == 1 for view in core.pool.views)
    )
    running = [here.stub.GenerateStream(ASK) for _ in here.pods]
    for stream in running:
        await stream.read()
    waiting = here.stub.GenerateStream(ASK)
    await here.fleet.until(lambda: core.admission.waiting == 1)
    waiting.cancel()
    await here.fleet.until(lambda: core.admission.waiting == 0)
    for stream in running:
        stream.cancel()
    await here.idle()


async def test_a_request_may_wait_for_its_turn_longer_than_a_message(one_site: Sites) -> None:
    here = await one_site(pod_waiting_requests=0)
    for one in here.pods:
        one.grpc.update(max_num_seqs=1)
        one.grpc.open_gate.clear()
    core = here.gateway.core
    await here.fleet.until(
        lambda: all(view.live.load.max_num_seqs == 1 for view in core.pool.views)
    )
    running = [here.stub.GenerateStream(ASK) for _ in here.pods]
    for stream in running:
        await stream.read()
    waiting = here.stub.Generate(ASK)
    await here.fleet.until(lambda: core.admission.waiting == 1)
    await asyncio.sleep(0.5)
    assert core.admission.waiting == 1
    for one in here.pods:
        one.grpc.open_gate.set()
    assert (await waiting).completions[0].text == "Hello there."
    for stream in running:
        stream.cancel()
    await here.idle()


async def test_what_runs_ends_well_while_the_gateway_drains(one_site: Sites) -> None:
    here = await one_site(shutdown_grace_seconds=60.0)
    async with here.post(HELLO | {"stream": True}) as answer:
        await answer.content.readline()
        drain = asyncio.create_task(here.gateway.drain())
        async with asyncio.timeout(30):
            while (await here.post().__aenter__()).status == 200:
                pass
        for one in here.pods:
            one.rest.gate.set()
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    await drain
    await here.idle()


async def test_what_is_shed_says_when_to_come_back(one_site: Sites) -> None:
    here = await one_site(max_inflight=1)
    for one in here.pods:
        one.grpc.open_gate.clear()
    stream = here.stub.GenerateStream(ASK)
    await stream.read()
    async with here.post() as answer:
        assert answer.status == 429 and int(answer.headers["retry-after"]) > 0
        assert (await answer.json())["error"]["code"] == "queue_full"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.Generate(ASK)
    error = status.from_grpc(caught.value)
    assert isinstance(error, errors.QueueFull) and error.retry_after
    stream.cancel()
    await here.idle()


async def test_wrong_requests_get_the_gateways_words(one_site: Sites) -> None:
    here = await one_site()
    async with here.post(HELLO | {"model": "other"}) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "model_not_found"
    async with here.session.get("/v1/models") as answer:
        assert answer.status == 501
        assert "gateway's own port" in (await answer.json())["error"]["message"]
    async with here.post(**{"content-encoding": "gzip"}) as answer:
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, "content-encoding")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.ListModels(v1.ListModelsRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.Generate(v1.GenerateRequest(model="other", text="x"))
    assert isinstance(status.from_grpc(caught.value), errors.ModelNotFound)
    await here.idle()


async def test_a_body_over_the_limit_reaches_no_pod(one_site: Sites) -> None:
    here = await one_site(max_body_bytes=2**20)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b" " * 2**19

    async with here.session.post(CHAT, data=pieces()) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["code"] == "request_too_large"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.Generate(v1.GenerateRequest(model="fake", text="x" * 2**21))
    assert isinstance(status.from_grpc(caught.value), errors.RequestTooLarge)
    assert not any(one.rest.seen or one.grpc.received for one in here.pods)
    await here.idle()


async def test_a_pods_error_is_passed_on_and_counts_against_it(one_site: Sites) -> None:
    here = await one_site(outlier_consecutive_failures=2)
    here.pods[0].rest.status = 500
    for _ in range(2):
        async with here.post(**{"x-subset": here.pods[0].in_rest}) as answer:
            assert (answer.status, (await answer.json())["error"]["message"]) == (500, "no")
    await here.fleet.until(lambda: here.fleet.routable(here.gateway) == 1)
    async with here.post() as answer:
        assert (await answer.json())["pod"] == "second"
    await here.idle()


async def test_a_pods_grpc_error_keeps_its_details(one_site: Sites) -> None:
    here = await one_site()
    for one in here.pods:
        one.grpc.failures.append(errors.InvalidRequest("no such thing", field="text"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.Generate(ASK)
    error = status.from_grpc(caught.value)
    assert isinstance(error, errors.InvalidRequest) and error.field == "text"
    await here.idle()


async def test_requests_that_a_pod_does_not_take_are_lost_once(one_site: Sites) -> None:
    here = await one_site()
    await here.pods[0].grpc.stop()
    for _ in range(4):
        async with here.post() as answer:
            assert answer.status == 200
        await here.fleet.until(lambda: here.fleet.routable(here.gateway) == 1)
        await here.stub.Generate(ASK)
    await here.idle()


async def test_only_who_may_gets_through_and_the_pod_sees_no_credential(
    one_site: Sites, tmp_path: Path
) -> None:
    key, entry = new_key("acme")
    file = tmp_path / "keys.json"
    file.write_bytes(msgspec.json.encode({"keys": [entry]}))
    here = await one_site(api_keys_file=str(file))
    async with here.post() as answer:
        assert answer.status == 401 and "www-authenticate" in answer.headers
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.Generate(ASK)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with here.post(authorization=f"Bearer {key}") as answer:
        assert answer.status == 200
    ((headers, _),) = (seen for one in here.pods for seen in one.rest.seen)
    assert "authorization" not in headers
    await here.idle()


async def test_tokens_are_charged_as_the_response_has_them(one_site: Sites, tmp_path: Path) -> None:
    file = tmp_path / "tenants.json"
    rules = {"tenants": {"anonymous": {"tokensPerMinute": 6, "burstSeconds": 600}}}
    file.write_text(json.dumps(rules))
    here = await one_site(tenants_file=str(file))
    async with here.post(HELLO | {"max_tokens": 20}) as answer:
        assert answer.status == 200
    await here.idle()
    async with here.post(HELLO | {"max_tokens": 58}) as answer:
        assert answer.status == 429
        assert (await answer.json())["error"]["code"] == "rate_limited"
    async with here.post(HELLO | {"max_tokens": 40}) as answer:
        assert answer.status == 200


async def test_who_leaves_amid_a_response_pays_for_what_the_pod_has_read(
    one_site: Sites, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.json"
    rules = {"tenants": {"anonymous": {"tokensPerMinute": 6, "burstSeconds": 600}}}
    file.write_text(json.dumps(rules))
    here = await one_site(tenants_file=str(file))
    body = HELLO | {"stream": True, "messages": [{"role": "user", "content": "word " * 40}]}
    async with here.post(body | {"max_tokens": 1}) as answer:
        await answer.content.readline()
        answer.close()
    await here.idle()
    async with here.post(HELLO | {"max_tokens": 50}) as answer:
        assert answer.status == 429


async def test_a_call_ends_at_its_deadline(one_site: Sites) -> None:
    here = await one_site()
    for one in here.pods:
        one.grpc.open_gate.clear()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.stub.Generate(ASK, timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with here.post(
        HELLO | {"stream": True}, **{"x-request-timeout-seconds": "1.5"}
    ) as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    await here.idle()


async def test_a_pod_that_says_nothing_is_left_at_the_deadline(one_site: Sites) -> None:
    here = await one_site()
    for one in here.pods:
        one.rest.is_mute = True
    async with here.post(**{"x-request-timeout-seconds": "0.3"}) as answer:
        assert answer.status == 504
        assert (await answer.json())["error"]["code"] == "deadline_exceeded"
    await here.idle()
    await here.fleet.until(lambda: sum(one.rest.left for one in here.pods) == 1)


async def test_our_client_s_hint_spares_no_proxy_its_body(one_site: Sites) -> None:
    here = await one_site()
    text = "y" * BIG
    async with AsyncClient(f"127.0.0.1:{here.port}") as client:
        answer = await client.generate(text, model="fake")
    assert answer.completions[0].text == "Hello there."
    (there,) = (seen for one in here.pods for seen in one.grpc.received)
    assert there.request == v1.GenerateRequest(model="fake", text=text)
    assert HINT_METADATA not in there.metadata
    await here.idle()


async def test_health_is_served_on_the_pickers_port_until_the_drain(one_site: Sites) -> None:
    here = await one_site()
    port = here.gateway.picker_port
    certificate = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    credentials = grpc.ssl_channel_credentials(certificate.encode())
    name = (("grpc.ssl_target_name_override", "open-autoglm-endpoint-picker"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, name) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        services = ("", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor")
        for service in services:
            found = await check(health_pb2.HealthCheckRequest(service=service))
            assert found.status == health_pb2.HealthCheckResponse.SERVING, service


async def test_proxies_that_send_bodies_whole_are_served_too(one_site: Sites) -> None:
    here = await one_site("BUFFERED")
    async with here.post() as answer:
        assert answer.status == 200, await answer.text()
    assert (await here.stub.Generate(ASK)).completions[0].text == "Hello there."
    assert "".join([c.text async for c in here.stub.GenerateStream(ASK)]) == "Hello there."
    await here.idle()


async def test_proxies_that_send_no_bodies_get_an_error_with_what_to_set(one_site: Sites) -> None:
    here = await one_site("NONE")
    async with here.post() as answer:
        assert answer.status == 501
        assert "FULL_DUPLEX_STREAMED" in (await answer.json())["error"]["message"]
    await here.idle()


async def test_retries_of_the_proxy_go_down_the_list(list_site: Sites) -> None:
    here = await list_site(endpoint_picker_fallbacks=1, outlier_consecutive_failures=2)
    here.pods[0].rest.status = 503
    asked = 0
    while len(here.pods[0].rest.seen) < 2:
        async with here.post() as answer:
            assert (answer.status, (await answer.json())["pod"]) == (200, "second")
        asked += 1
    assert len(here.pods[1].rest.seen) == asked
    await here.fleet.until(lambda: here.fleet.routable(here.gateway) == 1)
    await here.idle()
