"""The pod's HTTP port with the echo engine."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from autoglm.inference.app import PodServer
from autoglm.validation.http_apis import DENIED

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
async def http(pod: PodServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{pod.http_port}") as session:
        yield session


async def post(http: aiohttp.ClientSession, path: str, **body: Any) -> tuple[int, Any]:
    async with http.post(path, json=body) as response:
        return response.status, await response.json()


async def events(response: aiohttp.ClientResponse) -> list[str]:
    return [line[6:].decode().strip() async for line in response.content if line.strip()]


async def test_chat_responds(http: aiohttp.ClientSession) -> None:
    code, answer = await post(http, "/v1/chat/completions", **CHAT)
    assert code == 200
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello there"}
    assert answer["usage"]["completion_tokens"] == 5


async def test_a_chat_stream_ends_with_usage_and_done(http: aiohttp.ClientSession) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with http.post("/v1/chat/completions", json=CHAT | options) as response:
        *chunks, last, done = await events(response)
    texts = [json.loads(c)["choices"][0]["delta"]["content"] for c in chunks]
    assert "".join(texts) == "hello there"
    assert json.loads(last)["usage"]["completion_tokens"] == 5
    assert done == "[DONE]"


async def test_completions_honour_stop_and_logprobs(http: aiohttp.ClientSession) -> None:
    body = {"model": "echo", "prompt": "one two three", "stop": "two", "logprobs": 2}
    code, answer = await post(http, "/v1/completions", **body)
    choice = answer["choices"][0]
    assert (code, choice["text"], choice["stop_reason"]) == (200, "one ", "two")
    assert len(choice["logprobs"]["top_logprobs"][0]) == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_completions_echo_the_prompt(http: aiohttp.ClientSession, stream: bool) -> None:
    body = {"model": "echo", "prompt": "one two", "echo": True, "stream": stream}
    async with http.post("/v1/completions", json=body) as response:
        text = await response.text()
    lines = [e.removeprefix("data: ") for e in text.split("\n\n")][:-2] if stream else [text]
    parts = [json.loads(line)["choices"][0]["text"] for line in lines]
    assert "".join(parts) == "one twoone two"


async def test_a_truncation_to_the_context_leaves_a_prompt_that_fits(
    http: aiohttp.ClientSession,
) -> None:
    code, answer = await post(http, "/v1/chat/completions", **CHAT, truncate_prompt_tokens=-1)
    assert (code, answer["choices"][0]["message"]["content"]) == (200, "hello there")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/chat/completions", CHAT | {"temperature": 9}, 400),
        ("/v1/chat/completions", CHAT | {"model": "nope"}, 404),
        ("/v1/completions", {"model": "echo", "prompt": ""}, 400),
        ("/v1/embeddings", {"model": "echo", "input": "x"}, 501),
        ("/v1/chat/completions", CHAT | {"response_format": {"type": "structural_tag"}}, 501),
        ("/v1/completions", {"model": "echo", "prompt": "x", "best_of": 2}, 501),
        ("/tokenize", {"model": "echo", "messages": "x"}, 400),
        ("/tokenize", {"model": "nope", "prompt": "x"}, 404),
        ("/v1/completions", {"model": "echo", "prompt": "x", "suffix": "y"}, 501),
    ],
)
async def test_wrong_requests_get_openai_errors(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any], code: int
) -> None:
    status, answer = await post(http, path, **body)
    assert status == code
    assert answer["error"]["message"]


async def test_tool_calls_are_no_obstacle_to_counting_tokens(http: aiohttp.ClientSession) -> None:
    turn = {"role": "assistant", "content": "one two", "tool_calls": [[None, None]]}
    with_calls, without = [
        await post(http, "/tokenize", model="echo", messages=[message])
        for message in (turn, {k: v for k, v in turn.items() if k != "tool_calls"})
    ]
    assert with_calls == without
    assert with_calls[0] == 200


async def test_the_request_id_comes_back(http: aiohttp.ClientSession) -> None:
    headers = {"x-request-id": "mine"}
    async with http.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
        assert response.headers["x-request-id"] == "mine"


async def test_metrics_have_vllms_names(http: aiohttp.ClientSession) -> None:
    async with http.get("/metrics") as response:
        text = await response.text()
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert f'vllm:{name}{{engine="0",model_name="echo"}} 0.0' in text


async def test_oip_over_rest_is_served_beside(http: aiohttp.ClientSession) -> None:
    body = {"model_name": "echo", "input_data": "good", "labels": ["bad", "good"]}
    code, answer = await post(http, "/v2/inference", **body)
    assert (code, answer["output"]) == (200, "good")


async def test_readiness_falls_with_the_drain(pod: PodServer, http: aiohttp.ClientSession) -> None:
    async with http.get("/health/ready") as response:
        assert response.status == 200
    pod.pod.drain()
    async with http.get("/health/ready") as response:
        assert response.status == 503


async def test_a_draining_pod_serves_and_closes_connections(
    pod: PodServer, http: aiohttp.ClientSession
) -> None:
    pod.pod.drain()
    async with http.post("/v1/chat/completions", json=CHAT) as response:
        assert (response.status, response.headers["connection"]) == (200, "close")
    pod.pod.close()
    async with http.post("/v1/chat/completions", json=CHAT) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "1")


async def test_a_client_that_leaves_frees_its_blocks(
    pod: PodServer, http: aiohttp.ClientSession
) -> None:
    body = CHAT | {"stream": True, "messages": [{"role": "user", "content": "<|echo hang=1|>"}]}
    async with http.post("/v1/chat/completions", json=body) as response:
        await response.content.readline()
        assert pod.pod.engine().load().running == 1
    while pod.pod.engine().load().running:
        async with http.get("/metrics") as metrics:
            await metrics.read()
    assert pod.pod.engine().load().kv_cache_usage == 0


async def test_the_metrics_port_serves_probes(pod: PodServer) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{pod.metrics_port}") as session:
        async with session.get("/health/ready") as response:
            assert (await response.json())["phase"] == "ready"
        async with session.get("/metrics") as response:
            assert "vllm:num_requests_running" in await response.text()


@pytest.mark.parametrize("path", sorted(DENIED))
async def test_a_pod_serves_no_path_that_manages_it(http: aiohttp.ClientSession, path: str) -> None:
    for method in ("GET", "POST"):
        async with http.request(method, path, json={}) as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "unknown_path"
