"""Bodies of very many values, through a real gateway on both data planes and at a pod itself."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from google.protobuf.message import Message
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import errors, rpc, status
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio]
MANY = 300_000
CHAT = "/v1/chat/completions"


def many(entry: str, count: int = MANY) -> str:
    return ",".join([entry] * count)


BIASES = ",".join(f'"{i}":1' for i in range(MANY))
USER = '{"role":"user","content":"x"}'
BODIES = {
    "messages": (CHAT, '"messages":[' + many(USER) + "]"),
    "messages[0].content": (CHAT, '"messages":[{"role":"user","content":[' + many("{}") + "]}]"),
    "logit_bias": (CHAT, f'"messages":[{USER}],"logit_bias":' + "{" + BIASES + "}"),
    "tools": (CHAT, '"tools":[' + many("{}") + "]"),
    "prompt": ("/v1/completions", '"prompt":[' + many('"x"') + "]"),
    "input": ("/v1/responses", '"input":[' + many("{}") + "]"),
    "unknown": ("/v1/completions", '"unknown":[' + many("[]") + "]"),
    "inputs": ("/v2/models/echo/infer", '"inputs":[' + many("{}") + "]"),
}
MESSAGES: dict[str, tuple[str, Message]] = {
    "messages": ("Chat", v1.ChatRequest(model="echo", messages=[v1.ChatMessage()] * MANY)),
    "sampling_params.logit_bias": (
        "Generate",
        v1.GenerateRequest(
            model="echo",
            sampling_params=v1.SamplingParams(logit_bias=dict.fromkeys(range(MANY), 1.0)),
        ),
    ),
    "sampling_params.stop": (
        "GenerateStream",
        v1.GenerateRequest(sampling_params=v1.SamplingParams(stop=["x"] * MANY)),
    ),
    "labels": ("Predict", v1.PredictRequest(model_name="echo", labels=["x"] * MANY)),
    "texts": ("Embed", v1.EmbedRequest(model="echo", texts=["x"] * MANY)),
}


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    logs = tmp_path_factory.mktemp("bounds")
    room = ("--max-model-len", "1100000", "--echo-kv-blocks", "100000")
    pods = [processes.echo_pod(logs, f"echo-{i}", *room) for i in range(2)]
    with processes.running(*pods):
        yield pods


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, pods: list[Process], plane: str
) -> Iterator[Process]:
    gateway = processes.gateway(tmp_path_factory.mktemp("gateway"), pods, "--data-plane", plane)
    with processes.running(gateway):
        processes.eventually(lambda: gateway.ready_endpoints() == 2)
        yield gateway


def all_pods_stayed(gateway: Process) -> bool:
    return gateway.ready_endpoints() == 2 and not re.search(r"\bejected", gateway.log.read_text())


async def refused(address: str, path: str, fields: str) -> tuple[int, str]:
    body = f'{{"model":"echo",{fields}}}'.encode()
    headers = {"content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{address}{path}", data=io.BytesIO(body), headers=headers) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("field", BODIES)
async def test_a_body_over_a_bound_is_refused_with_its_field(
    gateway: Process, pods: list[Process], field: str
) -> None:
    path, fields = BODIES[field]
    for address in (gateway.http_address, pods[0].http_address):
        code, text = await refused(address, path, fields)
        assert code == 400
        assert f"{field} has more than" in text
    assert all_pods_stayed(gateway)


@pytest.mark.parametrize("field", MESSAGES)
async def test_a_message_over_a_bound_is_refused_with_its_field(
    gateway: Process, pods: list[Process], field: str
) -> None:
    method, request = MESSAGES[field]
    for address in (gateway.grpc_address, pods[0].grpc_address):
        async with rpc.channel(address) as channel:
            call = getattr(InferenceStub(channel), method)(request)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (anext(aiter(call)) if method.endswith("Stream") else call)
        error = status.from_grpc(caught.value)
        assert isinstance(error, errors.InvalidRequest)
        assert error.field == field
        assert f"{field} has more than" in str(error)
    assert all_pods_stayed(gateway)


async def test_what_is_large_and_legal_is_served(gateway: Process) -> None:
    bodies: dict[str, dict[str, object]] = {
        "ids": {"prompt": [353] * 100_000},
        "text": {"prompt": "word " * 20_000},
        "texts": {"prompt": "x" * 500_000},
    }
    for body in bodies.values():
        fields = json.dumps({"max_tokens": 1, **body})[1:-1]
        code, text = await refused(gateway.http_address, "/v1/completions", fields)
        assert code == 200, text[:300]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000_000}}
    content = [{"type": "text", "text": "Which?"}, image]
    fields = json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": 1})[1:-1]
    code, text = await refused(gateway.http_address, CHAT, fields)
    # The echo engine's own response, so that the body has passed the gateway.
    assert (code, "reads text only" in text) == (400, True), text[:300]


async def test_messages_up_to_their_bound_are_served(gateway: Process) -> None:
    message = '{"role":"user","content":"x"}'
    fields = f'"max_tokens":1,"messages":[{many(message, 2048)}]'
    code, text = await refused(gateway.http_address, CHAT, fields)
    assert code == 200, text[:300]
    request = v1.ChatRequest(
        model="echo",
        messages=[v1.ChatMessage(role="user", content="x")] * 2048,
        sampling_params=v1.SamplingParams(max_tokens=1),
    )
    async with rpc.channel(gateway.grpc_address) as channel:
        assert (await InferenceStub(channel).Chat(request)).usage.completion_tokens == 1


async def test_a_message_bound_of_its_own_leaves_rest_as_it_is(
    tmp_path: Path, pods: list[Process]
) -> None:
    gateway = processes.gateway(tmp_path, pods, "--max-message-bytes", "65536")
    text = "word " * 20_000
    with processes.running(gateway):
        processes.eventually(lambda: gateway.ready_endpoints() == 2)
        request = v1.TokenizeRequest(model="echo", text=text)
        async with rpc.channel(gateway.grpc_address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await InferenceStub(channel).Tokenize(request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        code, found = await refused(gateway.http_address, "/tokenize", f'"prompt":"{text}"')
        assert code == 200, found[:300]
