"""Pods, networks and gateways fail under continuous traffic; clients notice nothing but time.

Answers are compared byte for byte with those of an undisturbed run.
"""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import grpc
import pytest

from autoglm import v1
from autoglm.testing import processes
from autoglm.testing.processes import Process
from autoglm.testing.tcp_proxy import TcpProxy
from autoglm.testing.traffic import Ask, Traffic, traffic
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
QUESTIONS = ("Hello!", "What is a pod?", "Who are you?")
TOKENS = 150
GRPC_WAYS = 5
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "maxLength": 40}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
Address = Callable[[], str]
Says = Callable[[], str]
Figures = Callable[[Traffic, float], None]


def generate_stream(address: Address, question: str) -> Says:
    """Long greedy streams with penalties, as gRPC clients read them."""

    def ask() -> str:
        params = v1.SamplingParams(
            temperature=0, max_tokens=TOKENS, ignore_eos=True, frequency_penalty=0.5
        )
        request = v1.GenerateRequest(model="tiny-glm", text=question, sampling_params=params)
        with grpc.insecure_channel(address()) as channel:
            chunks = list(InferenceStub(channel).GenerateStream(request, timeout=90))
        assert chunks[-1].usage.completion_tokens == TOKENS
        return "".join(chunk.text for chunk in chunks)

    return ask


def chat_schema_stream(address: Address) -> Says:
    """A grammar that goes on in the middle of a JSON text."""

    def ask() -> str:
        schema = v1.ResponseFormat.JsonSchema(name="s", schema=json.dumps(SCHEMA))
        request = v1.ChatRequest(
            model="tiny-glm",
            messages=[v1.ChatMessage(role="user", content="Answer in JSON.")],
            sampling_params=v1.SamplingParams(temperature=0, max_tokens=TOKENS),
            response_format=v1.ResponseFormat(json_schema=schema),
        )
        with grpc.insecure_channel(address()) as channel:
            chunks = list(InferenceStub(channel).ChatStream(request, timeout=90))
        return "".join(chunk.delta.content for chunk in chunks)

    return ask


def choices_stream(address: Address) -> Says:
    """Two sampled answers by seed, whose random numbers go on where they were."""

    def ask() -> str:
        params = v1.SamplingParams(
            temperature=0.5, seed=11, n=2, max_tokens=TOKENS, ignore_eos=True, logprobs=1
        )
        request = v1.GenerateRequest(model="tiny-glm", text="Hello!", sampling_params=params)
        texts = ["", ""]
        with grpc.insecure_channel(address()) as channel:
            for chunk in InferenceStub(channel).GenerateStream(request, timeout=90):
                texts[chunk.index] += chunk.text
        return "\n".join(texts)

    return ask


def tool_call_stream(address: Address) -> Says:
    """The arguments of a call, whose parser goes on as well as its grammar."""

    def ask() -> str:
        request = v1.ChatRequest(
            model="tiny-glm",
            messages=[v1.ChatMessage(role="user", content="Call it.")],
            sampling_params=v1.SamplingParams(temperature=0, max_tokens=TOKENS),
            tools=[v1.Tool(name="look", parameters=json.dumps(SCHEMA))],
            tool_choice=v1.ToolChoice(function="look"),
        )
        with grpc.insecure_channel(address()) as channel:
            chunks = list(InferenceStub(channel).ChatStream(request, timeout=90))
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls]
        return "".join(call.name + call.arguments for call in calls)

    return ask


def rest(address: Address, question: str, *, stream: bool) -> Says:
    body = {
        "model": "tiny-glm",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": stream,
    }

    def ask() -> str:
        url = f"http://{address()}/v1/chat/completions"
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                text = answer.read().decode()
        except HTTPError as error:
            raise ConnectionError(f"{error}: {error.read().decode()}") from error
        return said_in(text) if stream else said_at_once(text)

    return ask


def said_at_once(text: str) -> str:
    return str(json.loads(text)["choices"][0]["message"]["content"])


def said_in(text: str) -> str:
    """Raises ConnectionError for a stream that the gateway has ended with an error."""
    events = text.split("\n\n")
    for event in events:
        if event.startswith('data: {"error"'):
            raise ConnectionError(event)
    assert events[-2:] == ["data: [DONE]", ""]
    parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in parsed)


def ways(grpc_address: Address, http_address: Address) -> list[Says]:
    return [
        generate_stream(grpc_address, QUESTIONS[0]),
        generate_stream(grpc_address, QUESTIONS[1]),
        chat_schema_stream(grpc_address),
        choices_stream(grpc_address),
        tool_call_stream(grpc_address),
        rest(http_address, QUESTIONS[2], stream=True),
        rest(http_address, QUESTIONS[0], stream=True),
        rest(http_address, QUESTIONS[1], stream=False),
    ]


@pytest.fixture(scope="module")
def undisturbed(pods: list[Process]) -> list[str]:
    """What each way says when nothing happens, from a pod itself."""
    pod = pods[0]
    return [says() for says in ways(lambda: pod.grpc_address, lambda: pod.http_address)]


def checked(says: Says, expected: str) -> Ask:
    def ask() -> None:
        assert says() == expected

    return ask


def of(gateway: Process, undisturbed: list[str]) -> list[Ask]:
    all_ways = ways(lambda: gateway.grpc_address, lambda: gateway.http_address)
    return [checked(says, text) for says, text in zip(all_ways, undisturbed, strict=True)]


def recovered(gateway: Process) -> float:
    page = gateway.get("/metrics")[1]
    found = re.search(r'^autoglm_gateway_recoveries_total\{outcome="recovered"\} (\S+)', page, re.M)
    return float(found[1]) if found else 0.0


@contextmanager
def watched(gateway: Process, asks: list[Ask], figures: Figures) -> Iterator[Traffic]:
    """Traffic in which nothing may fail; its figures are kept."""
    before = recovered(gateway)
    with traffic(asks) as result:
        result.wait_served(6, 120)
        yield result
    figures(result, recovered(gateway) - before)
    assert result.failures == []


def until_busy(pod: Process) -> None:
    def is_busy() -> bool:
        found = re.search(r"^vllm:num_requests_running\S* (\S+)$", pod.get("/metrics")[1], re.M)
        return found is not None and float(found[1]) >= 2

    processes.eventually(is_busy, 60, "the pod has several requests")


def knows_both(gateway: Process) -> bool:
    return gateway.ready_endpoints() == 2


def strike_in_mid_stream(
    gateway: Process,
    pod: Process,
    strike: Callable[[], None],
    mend: Callable[[], None],
    result: Traffic,
) -> None:
    """Strikes again until a stream was hit: those seen on the pod may just have ended."""
    before = recovered(gateway)
    for _ in range(6):
        until_busy(pod)
        strike()
        result.wait_served(20, 120)
        mend()
        if recovered(gateway) > before:
            return
    pytest.fail("no stream was on the pod in six tries")


def test_kill_9_in_mid_stream(
    pods: list[Process],
    gateways: list[Process],
    undisturbed: list[str],
    revive: Callable[[Process], None],
    figures: Figures,
) -> None:
    gateway, pod = gateways[0], pods[0]
    with watched(gateway, of(gateway, undisturbed), figures) as result:
        strike_in_mid_stream(gateway, pod, pod.kill, lambda: revive(pod), result)


def test_a_pod_that_hangs(
    pods: list[Process], gateways: list[Process], undisturbed: list[str], figures: Figures
) -> None:
    gateway, pod = gateways[0], pods[1]

    def wake() -> None:
        pod.signal(signal.SIGCONT)
        processes.eventually(lambda: knows_both(gateway), 60)

    try:
        with watched(gateway, of(gateway, undisturbed), figures) as result:
            strike_in_mid_stream(gateway, pod, lambda: pod.signal(signal.SIGSTOP), wake, result)
    finally:
        pod.signal(signal.SIGCONT)
    # Far sooner than any request's own limits.
    assert max(result.seconds) < 45


@pytest.fixture
def proxied(logs: Path, pods: list[Process]) -> Iterator[tuple[TcpProxy, Process]]:
    """A gateway that reaches the first pod's gRPC port through a proxy, the second one directly."""
    with TcpProxy(pods[0].grpc_address) as proxy:
        addresses = (proxy.address, pods[1].grpc_address)
        endpoints = [part for a in addresses for part in ("--endpoint", f"grpc://{a}")]
        gateway = Process("proxied", ["gateway", *endpoints], logs / "proxied.log")
        with processes.running(gateway):
            processes.eventually(lambda: knows_both(gateway), 60)
            yield proxy, gateway


def test_connections_that_are_reset(
    proxied: tuple[TcpProxy, Process],
    pods: list[Process],
    undisturbed: list[str],
    figures: Figures,
) -> None:
    proxy, gateway = proxied
    with watched(gateway, of(gateway, undisturbed), figures) as result:
        for _ in range(3):
            until_busy(pods[0])
            proxy.reset()
            result.wait_served(6, 120)


def test_connections_that_are_half_open(
    proxied: tuple[TcpProxy, Process],
    pods: list[Process],
    undisturbed: list[str],
    figures: Figures,
) -> None:
    proxy, gateway = proxied
    # REST goes to the pod's own HTTP port, which has no proxy.
    with watched(gateway, of(gateway, undisturbed)[:GRPC_WAYS], figures) as result:
        until_busy(pods[0])
        proxy.go_deaf()
        # Nothing may be healed by hearing again too soon.
        processes.eventually(lambda: not knows_both(gateway))
        result.wait_served(12, 120)
        proxy.hear()
        result.wait_served(3, 120)


def test_a_slow_pod(
    proxied: tuple[TcpProxy, Process], undisturbed: list[str], figures: Figures
) -> None:
    proxy, gateway = proxied
    with watched(gateway, of(gateway, undisturbed), figures) as result:
        proxy.delay_seconds = 0.5
        result.wait_served(12, 120)
        proxy.delay_seconds = 0.0
        result.wait_served(6, 120)


def patient(ask: Ask, seconds: float = 240.0) -> Ask:
    """Asks again until it is answered, as clients do that retry."""

    def asks() -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except (grpc.RpcError, OSError, HTTPException):
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)

    return asks


def test_all_pods_gone_and_back(
    pods: list[Process], gateways: list[Process], undisturbed: list[str], figures: Figures
) -> None:
    asks = [patient(ask) for ask in of(gateways[0], undisturbed)]
    with watched(gateways[0], asks, figures) as result:
        for pod in pods:
            pod.kill()
        processes.eventually(lambda: not gateways[0].is_ready())
        for pod in pods:
            pod.start()
        for pod in pods:
            pod.wait_ready()
        result.wait_served(12, 240)
    processes.eventually(lambda: all(map(knows_both, gateways)), 60)


def test_kill_9_and_restart_of_a_gateway(
    gateways: list[Process],
    undisturbed: list[str],
    revive: Callable[[Process], None],
    figures: Figures,
) -> None:
    asks = [patient(ask) for ask in of(gateways[1], undisturbed)]
    with traffic(asks) as result:
        result.wait_served(6, 120)
        gateways[1].kill()
        revive(gateways[1])
        result.wait_served(12, 120)
    figures(result, recovered(gateways[1]))
    assert result.failures == []


def test_rolling_restart_of_everything(
    pods: list[Process],
    gateways: list[Process],
    undisturbed: list[str],
    revive: Callable[[Process], None],
    figures: Figures,
) -> None:
    """Clients choose a ready gateway for each request, as a Service does."""

    def ready() -> Process:
        return next(g for g in gateways if g.is_ready())

    all_ways = ways(lambda: ready().grpc_address, lambda: ready().http_address)
    asks = [checked(says, text) for says, text in zip(all_ways, undisturbed, strict=True)]
    with traffic(asks) as result:
        result.wait_served(6, 120)
        for process in (*pods, *gateways):
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            revive(process)
            result.wait_served(6, 120)
    figures(result, sum(map(recovered, gateways)))
    assert result.failures == []


def test_a_full_disk_under_the_logs(
    pods: list[Process], undisturbed: list[str], figures: Figures
) -> None:
    endpoints = [p for pod in pods for p in ("--endpoint", f"grpc://{pod.grpc_address}")]
    gateway = Process("full", ["gateway", *endpoints], Path("/dev/full"))
    gateway.start()
    try:
        processes.eventually(gateway.is_ready, 60)
        with watched(gateway, of(gateway, undisturbed), figures) as result:
            result.wait_served(12, 120)
    finally:
        gateway.stop()
