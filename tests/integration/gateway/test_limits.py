"""Limits of tenants through a gateway with a real echo pod, by OpenAI's client and ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import openai
import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm.client import Client, RetryPolicy
from autoglm.common import errors
from autoglm.common.status import read_usage
from autoglm.gateway.identity.keys import new_key
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1 import open_inference_pb2_grpc

pytestmark = pytest.mark.timeout(120)
TENANTS = ("counted", "metered", "open", "free", "changed")
KEYS = {tenant: new_key(tenant) for tenant in TENANTS}
# Slow enough that nothing comes back while the tests run.
RULES: dict[str, Any] = {
    "tenants": {
        "counted": {"requestsPerMinute": 0.2, "burstSeconds": 900},
        "metered": {"tokensPerMinute": 1, "burstSeconds": 6000},
        "open": {"tokensPerMinute": 1, "burstSeconds": 60000},
        "changed": {"requestsPerMinute": 0.001},
    }
}
HELLO: dict[str, Any] = {
    "model": "echo",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "one two three"}],
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory, plane: str) -> Path:
    file = tmp_path_factory.mktemp("limits") / "tenants.json"
    file.write_text(json.dumps(RULES))
    return file


@pytest.fixture(scope="module")
def gateway(rules: Path, plane: str) -> Iterator[Process]:
    keys = rules.with_name("keys.json")
    keys.write_bytes(msgspec.json.encode({"keys": [entry for _, entry in KEYS.values()]}))
    pod = processes.echo_pod(rules.parent)
    files = ("--data-plane", plane, "--api-keys-file", str(keys), "--tenants-file", str(rules))
    gateway = processes.gateway(rules.parent, [pod], *files)
    with processes.running(pod, gateway):
        processes.eventually(lambda: gateway.ready_endpoints() > 0)
        yield gateway
        while OPENED:
            OPENED.pop().close()


OPENED: list[openai.OpenAI] = []


def openai_of(gateway: Process, tenant: str) -> openai.OpenAI:
    url, key = f"http://{gateway.http_address}/v1", KEYS[tenant][0]
    OPENED.append(openai.OpenAI(base_url=url, api_key=key, max_retries=0))
    return OPENED[-1]


def client_of(gateway: Process, tenant: str) -> Client:
    key, once = KEYS[tenant][0], RetryPolicy(attempts=1)
    return Client(gateway.grpc_address, model="echo", api_key=key, retries=once)


def test_requests_are_counted_over_both_wires_and_others_continue(gateway: Process) -> None:
    rest = openai_of(gateway, "counted").chat.completions.with_raw_response
    assert rest.create(**HELLO).headers["x-ratelimit-remaining-requests"] == "2"
    with client_of(gateway, "counted") as client:
        client.chat("one", max_tokens=1)
        client.chat("one", max_tokens=1)
        with pytest.raises(errors.RateLimited, match="'counted'") as caught:
            client.chat("one", max_tokens=1)
    assert caught.value.retry_after and caught.value.retry_after > 100
    with pytest.raises(openai.RateLimitError) as refused:
        rest.create(**HELLO)
    assert int(refused.value.response.headers["retry-after"]) > 100
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    openai_of(gateway, "free").chat.completions.create(**HELLO)
    metrics = gateway.wait_idle().get("/metrics")[1]
    assert 'autoglm_gateway_rate_limited_total{limit="requests"} 2.0' in metrics


def test_tokens_are_settled_to_the_pods_own_count(gateway: Process) -> None:
    api = openai_of(gateway, "metered").chat.completions.with_raw_response

    def left() -> int:
        gateway.wait_idle()
        return int(api.create(**HELLO).headers["x-ratelimit-remaining-tokens"])

    used = openai_of(gateway, "free").chat.completions.create(**HELLO).usage
    assert used is not None
    first = left()
    assert left() == first - used.total_tokens
    with client_of(gateway, "metered") as client:
        list(client.chat_stream("one two three", max_tokens=8))
    list(
        openai_of(gateway, "metered").chat.completions.create(
            **HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert left() == first - 4 * used.total_tokens


OPEN: dict[str, dict[str, Any]] = {
    "infer": {
        "inputs": [
            {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["one two three"]}
        ],
        "parameters": {"max_tokens": 8},
    },
    "generate": {"text_input": "one two three", "parameters": {"max_tokens": 8}},
    "generate_stream": {"text_input": "one two three", "parameters": {"max_tokens": 8}},
}


def infer(gateway: Process, method: str) -> None:
    request = oip.ModelInferRequest(model_name="echo")
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"one two three")
    request.parameters["max_tokens"].int64_param = 8
    metadata = (("authorization", f"Bearer {KEYS['open'][0]}"),)
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        if method == "ModelInfer":
            stub.ModelInfer(request, metadata=metadata)
        else:
            list(stub.ModelStreamInfer(iter([request]), metadata=metadata))


def test_requests_of_the_open_inference_protocol_are_charged_for_their_tokens(
    gateway: Process,
) -> None:
    api = openai_of(gateway, "open").chat.completions.with_raw_response

    def left() -> int:
        gateway.wait_idle()
        return int(api.create(**HELLO).headers["x-ratelimit-remaining-tokens"])

    used = openai_of(gateway, "free").chat.completions.create(**HELLO).usage
    assert used is not None
    each, last = used.total_tokens, left()
    headers = {"authorization": f"Bearer {KEYS['open'][0]}"}
    for name, body in OPEN.items():
        url = f"http://{gateway.http_address}/v2/models/echo/{name}"
        httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()
        last, before = left(), last
        assert before - last == 2 * each, name
    for method in ("ModelInfer", "ModelStreamInfer"):
        infer(gateway, method)
        last, before = left(), last
        assert before - last == 2 * each, method
    assert gateway.wait_idle().metric("autoglm_gateway_unmetered_requests_total") == 0


@pytest.mark.parametrize("api", ["infer", "generate"])
def test_usage_of_the_open_inference_protocol_is_logged_and_in_a_header(
    gateway: Process, api: str
) -> None:
    headers = {"authorization": f"Bearer {KEYS['free'][0]}", "x-request-id": f"usage-{api}"}
    url = f"http://{gateway.http_address}/v2/models/echo/{api}"
    response = httpx.post(url, json=OPEN[api], headers=headers, timeout=60)
    found = read_usage(response.headers["autoglm-usage"])
    assert found is not None

    def line() -> str:
        return next((x for x in gateway.log_tail().splitlines() if f"usage-{api}" in x), "")

    processes.eventually(lambda: bool(line()), what="the line of the request")
    fields = json.loads(line())
    assert fields["input_tokens"] == found.prompt_tokens
    assert fields["output_tokens"] == found.completion_tokens


def test_changed_rules_hold_without_a_restart(gateway: Process, rules: Path) -> None:
    api = openai_of(gateway, "changed").chat.completions
    api.create(**HELLO)
    with pytest.raises(openai.RateLimitError):
        api.create(**HELLO)
    rules.write_text(json.dumps({}))

    def is_free() -> bool:
        try:
            return bool(api.create(**HELLO).choices)
        except openai.RateLimitError:
            return False

    processes.eventually(is_free, what="the rules are gone")
