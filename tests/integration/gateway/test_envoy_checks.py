"""How Envoy consults the gateway: what of a request it shows, and what its client gets."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web
from tests.support.rest_stack import fake_server

from autoglm import v1
from autoglm.client.requests import hint_metadata
from autoglm.common import errors, status
from autoglm.gateway.app import Gateway
from autoglm.gateway.envoy.check_edge import CheckEdge
from autoglm.gateway.envoy.config import PLANE_HEADER
from autoglm.http1.exchange import Exchange as Check
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub
from autoglm.validation.http_errors import to_http

pytestmark = [pytest.mark.plane("envoy", "its own ways"), pytest.mark.timeout(60)]
ASK = v1.GenerateRequest(model="fake", text="Hello")
LONG = "word " * 40_000
CHAT = "/v1/chat/completions"
HELLO = {"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """The checks that Envoy has made."""
    seen: list[Check] = []
    serve = CheckEdge.serve

    async def noted(self: CheckEdge, check: Check) -> None:
        seen.append(check)
        await serve(self, check)

    monkeypatch.setattr(CheckEdge, "serve", noted)
    return seen


@asynccontextmanager
async def rest(fleet: Any, **settings: Any) -> AsyncIterator[tuple[Gateway, aiohttp.ClientSession]]:
    """A gateway over a pod whose REST server responds with what it was sent."""

    async def respond(request: web.Request) -> web.Response:
        body = await request.read()
        sent = {"target": request.path_qs, "headers": dict(request.headers), "size": len(body)}
        return web.json_response(sent)

    async with fake_server(respond) as url:
        (pod,) = await fleet.pods(FakePod(http_port=int(url.rpartition(":")[2])))
        gateway = await fleet.gateway(pod, **settings)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{gateway.http_port}") as session:
            yield gateway, session


async def rejection(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_model_behind_200_kb_of_prompt_is_found(fleet: Any, checks: list[Check]) -> None:
    body = json.dumps({"prompt": LONG, "model": "fake"})
    headers = {"content-type": "application/json"}
    async with (
        rest(fleet) as (_, session),
        session.post("/v1/completions", data=body, headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        assert (await response.json())["size"] == len(body)
        assert PLANE_HEADER in response.headers
    assert [check.announced for check in checks] == [len(body)]


async def test_a_long_grpc_message_is_shown_whole_and_reaches_the_pod(
    fleet: Any, checks: list[Check]
) -> None:
    (pod,) = await fleet.pods(FakePod(max_model_len=2**20))
    stub = await fleet.stub(await fleet.gateway(pod))
    request = v1.GenerateRequest(model="fake", text=LONG)
    assert (await stub.Generate(request)).completions
    assert pod.received[0].request == request
    assert [check.announced for check in checks] == [request.ByteSize() + 5]


async def test_a_grpc_client_that_names_several_addresses_is_served(fleet: Any) -> None:
    """Its authority has all of them."""
    (pod,) = await fleet.pods(FakePod())
    address = f"127.0.0.1:{(await fleet.gateway(pod)).grpc_port}"
    async with grpc.aio.insecure_channel(f"ipv4:{address},{address}") as channel:
        assert (await InferenceStub(channel).Generate(ASK)).completions


async def test_a_body_behind_a_hint_is_not_shown(fleet: Any, checks: list[Check]) -> None:
    (pod,) = await fleet.pods(FakePod(max_model_len=2**20))
    stub = await fleet.stub(await fleet.gateway(pod))
    request = v1.GenerateRequest(model="fake", text=LONG)
    hint = tuple(hint_metadata(request).items())
    assert (await stub.Generate(request, metadata=hint)).completions
    assert [chunk async for chunk in stub.GenerateStream(request, metadata=hint)]
    assert [check.announced for check in checks] == [0, 0]
    assert [received.request for received in pod.received] == [request, request]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"model": "other"}, errors.ModelNotFound),
        ({"text": ""}, errors.InvalidRequest),
        ({"text": "x" * 2**21}, errors.RequestTooLarge),
    ],
)
async def test_a_rejection_over_grpc_has_its_details(
    fleet: Any, change: dict[str, Any], kind: type[errors.AutoGLMError]
) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, max_body_bytes=2**20)
    request = v1.GenerateRequest(**{"model": "fake", "text": "Hello"} | change)
    error = await rejection((await fleet.stub(gateway)).Generate(request))
    found = status.from_grpc(error)
    assert type(found) is kind and error.code() is grpc.StatusCode[kind.grpc_status]
    assert found.message == error.details()
    assert pod.received == [] and len(gateway.core.exchanges) == 0


async def test_a_rejection_over_grpc_has_a_time_to_retry(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    await pod.stop()
    await fleet.until(lambda: fleet.routable(gateway) == 0)
    error = await rejection((await fleet.stub(gateway)).Generate(ASK))
    found = status.from_grpc(error)
    assert isinstance(found, errors.NoReadyEndpoint) and found.retry_after
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v2/models/fake/generate"])
async def test_a_rejection_over_rest_is_the_whole_error_of_its_dialect(
    fleet: Any, path: str
) -> None:
    async with rest(fleet) as (gateway, session):
        mine = {"x-request-id": "mine", "x-request-timeout-seconds": "soon"}
        async with session.post(path, json=HELLO, headers=mine) as response:
            wrong = errors.InvalidRequest(
                "header x-request-timeout-seconds is 'soon'; give seconds above 0",
                field="x-request-timeout-seconds",
            )
            await check_is(response, to_http(wrong, "mine", path))
        assert len(gateway.core.exchanges) == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v2/models/fake/generate"])
async def test_a_rejection_with_a_status_from_500_on_is_as_whole(fleet: Any, path: str) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    await pod.stop()
    await fleet.until(lambda: fleet.routable(gateway) == 0)
    body = HELLO | {"max_tokens": 4, "text_input": "Hello"}
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{gateway.http_port}") as session,
        session.post(path, json=body, headers={"x-request-id": "mine"}) as response,
    ):
        assert response.status == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["x-request-id"] == "mine"
        shape = json.loads(to_http(errors.NoReadyEndpoint("x"), "mine", path).body)
        assert (await response.json()).keys() == shape.keys()


async def check_is(response: aiohttp.ClientResponse, wanted: Any) -> None:
    assert (response.status, await response.read()) == (wanted.status, wanted.body)
    assert {k: response.headers[k] for k in wanted.headers} == wanted.headers


async def test_a_body_over_the_limit_is_rejected_with_the_gateways_error(
    fleet: Any, checks: list[Check]
) -> None:
    async with rest(fleet, max_body_bytes=2**20) as (_, session):
        for size, is_announced in ((2**20, True), (2**22, True), (2**22, False)):
            body = json.dumps({"model": "fake", "prompt": "x" * size}).encode()
            data = io.BytesIO(body) if is_announced else pieces(body)
            json_type = {"content-type": "application/json"}
            async with session.post("/v1/completions", data=data, headers=json_type) as response:
                found = await response.json()
                assert response.status == 413, found
                assert found["error"]["code"] == "request_too_large"
                assert "the body has more than 1048576 bytes" in found["error"]["message"]
    # Of one that was not announced the start is shown, of the other longer one nothing.
    assert [check.announced < 2**21 for check in checks] == [True, True]


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 2**18):
        yield body[start : start + 2**18]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
async def test_only_posts_are_shown_to_the_picker(
    fleet: Any, checks: list[Check], method: str
) -> None:
    async with rest(fleet) as (_, session):
        async with session.request(method, CHAT) as response:
            assert response.status == 405
        async with session.request(method, "/v1/models") as response:
            assert response.status == (200 if method in ("GET", "HEAD") else 405)
    assert checks == []


@pytest.mark.parametrize("wire", ["grpc", "rest"])
async def test_a_client_that_leaves_the_queue_takes_no_slot(fleet: Any, wire: str) -> None:
    (pod,) = await fleet.pods(FakePod(max_num_seqs=1))
    gateway = await fleet.gateway(pod, pod_waiting_requests=0)
    stub, admission = await fleet.stub(gateway), gateway.core.admission
    pod.open_gate.clear()
    first = stub.GenerateStream(ASK)
    await first.read()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{gateway.http_port}") as session:
        if wire == "grpc":
            waiting: Any = stub.GenerateStream(ASK)
            leave = waiting.cancel
        else:
            waiting = asyncio.ensure_future(session.post(CHAT, json=HELLO))
            leave = waiting.cancel
        await fleet.until(lambda: len(gateway.core.exchanges) == 2)
        leave()
        await fleet.until(lambda: len(gateway.core.exchanges) == 1)
    pod.open_gate.set()
    while await first.read() is not grpc.aio.EOF:
        pass
    await fleet.until(lambda: admission.in_flight == 0 and len(gateway.core.exchanges) == 0)
    # The slot is free: it was not given to the request that has left.
    assert (await stub.Generate(ASK)).completions
    assert len(pod.received) == 2


async def test_without_the_gateways_process_envoy_responds_in_the_paths_dialect(
    fleet: Any,
) -> None:
    """As beside a gateway that was killed, where Envoy runs in a container of its own."""
    async with rest(fleet) as (gateway, session):
        picker = gateway._plane._picker_server  # type: ignore[union-attr]
        await picker.stop(0)  # type: ignore[union-attr]
        for path, key in ((CHAT, "error"), ("/v1/messages", "request_id")):
            async with session.post(path, json=HELLO) as response:
                assert response.status == 503 and key in await response.json()
                assert response.headers["retry-after"] == "1"
        error = await rejection((await fleet.stub(gateway)).Generate(ASK))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_clients_cannot_set_what_a_check_sets(fleet: Any) -> None:
    theirs = {"x-envoy-auth-headers-to-remove": "content-type"}
    async with (
        rest(fleet) as (_, session),
        session.post(CHAT + "?a=%20b", json=HELLO, headers=theirs) as response,
    ):
        found = await response.json()
    assert found["target"] == CHAT + "?a=%20b"
    assert found["headers"]["Content-Type"] == "application/json"


async def test_a_server_with_a_base_path_gets_its_path_and_its_key(fleet: Any) -> None:
    seen: list[web.Request] = []

    async def respond(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request)
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    async with fake_server(respond) as url, aiohttp.ClientSession() as session:
        gateway = await fleet.gateway(endpoint=(f"{url}/base/v1",), upstream_api_key="s3", ready=1)
        seen.clear()
        address = f"http://127.0.0.1:{gateway.http_port}{CHAT}?a=1"
        async with session.post(address, json=HELLO) as response:
            assert response.status == 200
        (post,) = [request for request in seen if request.method == "POST"]
        assert post.path_qs == f"/base{CHAT}?a=1"
        assert post.headers["authorization"] == "Bearer s3"
