"""kill -9 of a pod in the middle of streams: the client notices nothing."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import Request, urlopen

import grpc
import openai
import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import errors, status
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(120)
TEXT = " ".join(f"wörd{number}" for number in range(40))
PARAMS: dict[str, Any] = {"n": 2, "temperature": 0.8, "seed": 11, "stop": ["wörd99"], "logprobs": 1}
DeliveredTokens = dict[int, str]
T = TypeVar("T")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recovery")


@pytest.fixture(scope="module")
def pods(logs: Path) -> Iterator[list[Process]]:
    # Slow enough that a stream is still under way when a test has found out where.
    pods = [processes.echo_pod(logs, f"echo-{n}", "--echo-token-rate", "25") for n in range(2)]
    with processes.running(*pods):
        yield pods


@pytest.fixture(scope="module")
def undisturbed(logs: Path) -> Iterator[Process]:
    """A pod that nothing happens to, as fast as it can; it serves the same APIs as a gateway."""
    with processes.running(pod := processes.echo_pod(logs, "undisturbed")):
        yield pod


@pytest.fixture(scope="module")
def gateway(logs: Path, pods: list[Process]) -> Iterator[Process]:
    gateway = processes.gateway(logs, pods)
    with processes.running(gateway):
        yield gateway


@pytest.fixture
def both(gateway: Process, pods: list[Process]) -> None:
    """Both pods are there, and the gateway knows it."""
    for pod in pods:
        if not pod.is_ready():
            pod.start().wait_ready()
    processes.eventually(lambda: gateway.ready_endpoints() == 2)


def joined(pieces: Sequence[tuple[int, str]]) -> DeliveredTokens:
    said: DeliveredTokens = {}
    for index, text in pieces:
        said[index] = said.get(index, "") + text
    return said


def notifying(stream: Iterable[T], on_piece: Callable[[], None]) -> Iterator[T]:
    for piece in stream:
        on_piece()
        yield piece


def generate_stream(gateway: Process, on_piece: Callable[[], None]) -> tuple[DeliveredTokens, int]:
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        params = v1.SamplingParams(max_tokens=400, **PARAMS)
        request = v1.GenerateRequest(model="echo", text=TEXT, sampling_params=params)
        stream = InferenceStub(channel).GenerateStream(request, timeout=60)
        chunks = list(notifying(stream, on_piece))
        assert [c.HasField("usage") for c in chunks].count(True) == 1
        tokens = sum(len(c.token_ids) for c in chunks)
        assert sum(len(c.logprobs) for c in chunks) == tokens
        assert chunks[-1].usage.completion_tokens == tokens
        return joined([(c.index, c.text) for c in chunks]), tokens


def chat_stream(gateway: Process, on_piece: Callable[[], None]) -> tuple[DeliveredTokens, int]:
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        params = v1.SamplingParams(max_tokens=400, **PARAMS)
        messages = [v1.ChatMessage(role="user", content=TEXT)]
        request = v1.ChatRequest(model="echo", messages=messages, sampling_params=params)
        stream = InferenceStub(channel).ChatStream(request, timeout=60)
        chunks = list(notifying(stream, on_piece))
        assert [c.delta.role for c in chunks].count("assistant") == 2
        pieces = [(c.index, c.delta.content) for c in chunks]
        return joined(pieces), chunks[-1].usage.completion_tokens


@contextmanager
def client_of(gateway: Process) -> Iterator[openai.OpenAI]:
    base = f"http://{gateway.http_address}/v1"
    with openai.OpenAI(base_url=base, api_key="x", max_retries=0) as client:
        yield client


def rest_chat(gateway: Process, on_piece: Callable[[], None]) -> tuple[DeliveredTokens, int]:
    with client_of(gateway) as client:
        stream = client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": TEXT}],
            max_tokens=400,
            n=2,
            seed=11,
            temperature=0.8,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(notifying(stream, on_piece))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [c.delta.role for c in choices].count("assistant") == 2
    assert chunks[-1].usage is not None
    pieces = [(c.index, c.delta.content or "") for c in choices]
    return joined(pieces), chunks[-1].usage.completion_tokens


def rest_completion(gateway: Process, on_piece: Callable[[], None]) -> tuple[DeliveredTokens, int]:
    with client_of(gateway) as client:
        stream = client.completions.create(
            model="echo",
            prompt=TEXT,
            max_tokens=400,
            n=2,
            seed=11,
            temperature=0.8,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(notifying(stream, on_piece))
    pieces = [(c.index, c.text) for chunk in chunks for c in chunk.choices]
    assert chunks[-1].usage is not None
    return joined(pieces), chunks[-1].usage.completion_tokens


WAYS = [generate_stream, chat_stream, rest_chat, rest_completion]


class Killer:
    """kill -9 of the pod that serves the one stream there is, once it has sent some pieces."""

    def __init__(self, pods: Sequence[Process], after: int) -> None:
        self._pods, self._after, self._count = pods, after, 0
        self.killed = False

    def __call__(self) -> None:
        self._count += 1
        if self._count == self._after:
            busy = [pod for pod in self._pods if _running(pod) > 0]
            assert len(busy) == 1
            busy[0].kill()
            self.killed = True


def _running(pod: Process) -> int:
    found = re.search(r"^vllm:num_requests_running\S* (\S+)$", pod.get("/metrics")[1], re.M)
    return int(float(found[1])) if found else 0


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(("way", "after"), [(way, 30) for way in WAYS] + [(rest_chat, 1)])
def test_kill_9_in_mid_stream_changes_no_byte(
    gateway: Process, pods: list[Process], undisturbed: Process, way: Any, after: int
) -> None:
    expected, tokens = way(undisturbed, lambda: None)
    killer = Killer(pods, after)
    said, counted = way(gateway, killer)
    assert killer.killed and said == expected and counted == tokens
    assert set(said) == {0, 1} and said[0] != said[1]
    assert sorted(said[0].replace(" ", "")) == sorted(TEXT.replace(" ", ""))


@pytest.mark.usefixtures("both")
def test_recovery_is_marked_counted_and_logged(gateway: Process, pods: list[Process]) -> None:
    request = v1.GenerateRequest(model="echo", text=TEXT)
    request.sampling_params.max_tokens = 60
    killer = Killer(pods, 10)
    before = gateway.get("/metrics")[1]
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        stream = InferenceStub(channel).GenerateStream(request, timeout=60)
        for _ in stream:
            killer()
        assert ("autoglm-recovered", "1") in (stream.trailing_metadata() or ())
    recovered = 'autoglm_gateway_recoveries_total{outcome="recovered"} '
    after = gateway.get("/metrics")[1]

    def count(page: str) -> float:
        return float(page.split(recovered)[1].split()[0]) if recovered in page else 0.0

    assert count(after) == count(before) + 1
    processes.eventually(lambda: '"recoveries":1' in gateway.log_tail())


@pytest.mark.usefixtures("both")
def test_an_unseeded_sample_is_not_passed_off_as_the_same(
    gateway: Process, pods: list[Process]
) -> None:
    request = v1.GenerateRequest(model="echo", text=TEXT)
    request.sampling_params.max_tokens, request.sampling_params.temperature = 60, 1.0
    killer = Killer(pods, 20)
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        stream = InferenceStub(channel).GenerateStream(request, timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stream:
                killer()
    error = status.from_grpc(caught.value)
    assert isinstance(error, errors.StreamBroken)
    assert "recovery on another pod failed" in error.message and "seed" in error.message


@pytest.mark.usefixtures("both")
def test_clients_never_see_the_pods_comments(gateway: Process) -> None:
    body = {"model": "echo", "prompt": TEXT, "stream": True, "max_tokens": 30}
    url = f"http://{gateway.http_address}/v1/completions"
    headers = {"content-type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=30) as answer:
        text = answer.read().decode()
    assert "autoglm-tokens" not in text and text.count("data: [DONE]") == 1
    assert json.loads(text.split("\n\n")[0].removeprefix("data: "))["choices"][0]["text"]


@pytest.mark.usefixtures("both")
def test_kill_9_fails_no_unary_response_under_way(gateway: Process, pods: list[Process]) -> None:
    found: list[str] = []

    def send() -> None:
        with client_of(gateway) as client:
            answer = client.completions.create(model="echo", prompt=TEXT, max_tokens=100)
        found.append(answer.choices[0].text)

    send()
    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    processes.eventually(lambda: sum(map(_running, pods)) == 4)
    pods[0].kill()
    for thread in threads:
        thread.join()
    assert len(found) == 5 and len(set(found)) == 1
