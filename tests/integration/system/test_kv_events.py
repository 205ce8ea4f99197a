"""Two gateways and a pod with KV events and a small cache: vLLM, and echo."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support import processes
from tests.support.processes import Process, eventually

from autoglm import v1
from autoglm.common.rpc import DEBUG_HEADER
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(900)
# The size of echo's cache; that of vLLM is in the conftest.
TOKENS = 1536
QUESTION = "What is the capital of France and why is it so? "


@pytest.fixture(scope="module", params=["vllm", "echo"])
def small_pod(request: pytest.FixtureRequest, directory: Path) -> Iterator[Process]:
    if request.param == "vllm":
        yield request.getfixturevalue("pod")
        return
    pod = processes.echo_pod(directory, "small-echo", "--echo-kv-blocks", str(TOKENS // 16))
    with processes.running(pod):
        yield pod


@pytest.fixture(scope="module")
def gateways(directory: Path, small_pod: Process) -> Iterator[list[Process]]:
    found = []
    for number in range(2):
        arguments = processes.gateway(directory, [small_pod], "--route-debug").arguments
        log = directory / f"kv-gateway-{number}.log"
        found.append(Process(f"kv-gateway-{number}", arguments, log))
    with processes.running(*found):
        for gateway in found:
            eventually(lambda g=gateway: streams(g) == 1, what="a stream of events")  # type: ignore[misc]  # of this round
        yield found


def streams(gateway: Process) -> float:
    text = gateway.get("/metrics")[1]
    lines = [x for x in text.splitlines() if x.startswith("autoglm_gateway_kv_event_streams ")]
    return float(lines[0].split()[1]) if lines else 0.0


def post(gateway: Process, path: str, body: dict[str, Any], **headers: str) -> Any:
    url = f"http://{gateway.http_address}{path}"
    all_headers = {"content-type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), all_headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def model_of(gateway: Process) -> str:
    with urllib.request.urlopen(f"http://{gateway.http_address}/v1/models", timeout=10) as answer:
        return str(json.load(answer)["data"][0]["id"])


def chat(gateway: Process, text: str, **headers: str) -> Any:
    body = {
        "model": model_of(gateway),
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 1,
        "temperature": 0,
    }
    return post(gateway, "/v1/chat/completions", body, **headers)


def explained(gateway: Process, text: str) -> Any:
    (candidate,) = chat(gateway, text, **{DEBUG_HEADER: "explain"})["candidates"]
    return candidate


def held(gateway: Process, text: str) -> int:
    """Blocks of the text; -1 until the gateway has heard what is in the cache."""
    candidate = explained(gateway, text)
    return int(candidate["blocks_held"]) if candidate["blocks_are_exact"] else -1


def test_what_one_gateway_had_cached_the_other_knows(gateways: list[Process]) -> None:
    one, two = gateways
    text = f"Shared. {QUESTION}" * 12
    eventually(lambda: held(one, text) == held(two, text) == 0, what="nothing of it is cached")
    chat(one, text)
    eventually(lambda: held(two, text) >= 2, what="two blocks that the other gateway sent")
    eventually(lambda: held(one, text) == held(two, text), what="gateways agree")


def test_grpc_and_rest_have_the_same_names(gateways: list[Process]) -> None:
    one, two = gateways
    text = f"By gRPC. {QUESTION}" * 12
    request = v1.ChatRequest(
        model=model_of(one),
        messages=[v1.ChatMessage(role="user", content=text)],
        sampling_params=v1.SamplingParams(max_tokens=1, temperature=0),
    )
    with grpc.insecure_channel(one.grpc_address) as channel:
        InferenceStub(channel).Chat(request, timeout=60)
    eventually(lambda: held(two, text) >= 2, what="two blocks asked for by gRPC")


def test_token_ids_are_known_to_the_block(gateways: list[Process]) -> None:
    one, two = gateways
    model = model_of(one)
    with grpc.insecure_channel(one.grpc_address) as channel:
        stub = InferenceStub(channel)
        text = f"By ids. {QUESTION}" * 30
        ids = list(stub.Tokenize(v1.TokenizeRequest(model=model, text=text)).token_ids)[
            : 64 * 5 + 1
        ]
        request = v1.GenerateRequest(
            model=model,
            token_ids=v1.TokenIds(ids=ids),
            sampling_params=v1.SamplingParams(max_tokens=1, temperature=0),
        )
        stub.Generate(request, timeout=60)
    body = {"model": model, "prompt": ids}

    def blocks() -> int:
        shown = post(two, "/v1/completions", body, **{DEBUG_HEADER: "explain"})
        return int(shown["candidates"][0]["blocks_held"])

    eventually(lambda: blocks() == 5, what="five blocks of 64 token ids")


def test_an_evicted_prompt_is_promised_no_more(gateways: list[Process]) -> None:
    one, two = gateways
    text = f"To be evicted. {QUESTION}" * 12
    chat(one, text)
    eventually(lambda: held(two, text) >= 2, what="the prompt is cached")
    # Prompts of the other gateway's take the cache, which the first cannot know by itself.
    for number in range(12):
        chat(two, f"Number {number} of others. {QUESTION}" * 12)
    eventually(lambda: held(one, text) == 0, what="the first gateway knows of the eviction")


def test_a_gateway_that_restarts_knows_the_cache(directory: Path, gateways: list[Process]) -> None:
    one, two = gateways
    text = f"Before the start. {QUESTION}" * 12
    chat(one, text)
    eventually(lambda: held(one, text) >= 2)
    two.stop()
    two.start().wait_ready()
    eventually(lambda: streams(two) == 1)
    eventually(lambda: held(two, text) >= 2, what="a fresh gateway knows what is cached")
