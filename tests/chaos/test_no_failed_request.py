"""Pods and gateways go away, by plan and without notice; no request fails.

Streams that a killed pod had already begun are not covered here: until token replay exists they end
with STREAM_BROKEN, so the kill happens between them.
"""

import json
import signal
import urllib.request
from collections.abc import Callable

import pytest
from tests.support.processes import Process
from tests.support.traffic import Send, traffic

from autoglm.client import Client, RetryPolicy

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
QUESTION = "Hello!"
ANSWER = "Hello! Ask me something about Open-AutoGLM."
MESSAGES = [{"role": "user", "content": QUESTION}]
# A retry in the client would hide what the gateway failed to do.
NO_RETRY = RetryPolicy(attempts=1)
Address = Callable[[], str]


def grpc_unary(address: Address) -> Send:
    def send() -> None:
        with Client(address(), retries=NO_RETRY) as client:
            response = client.chat(MESSAGES, model="tiny-glm", temperature=0, timeout=60)
        assert response.choices[0].message.content == ANSWER

    return send


def grpc_stream(address: Address) -> Send:
    def send() -> None:
        with Client(address(), retries=NO_RETRY) as client:
            chunks = client.chat_stream(MESSAGES, model="tiny-glm", temperature=0, timeout=60)
            text = "".join(c.delta.content for c in chunks)
        assert text == ANSWER

    return send


def rest_unary(address: Address) -> Send:
    body = json.dumps({"model": "tiny-glm", "messages": MESSAGES, "temperature": 0}).encode()

    def send() -> None:
        url = f"http://{address()}/v1/chat/completions"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)["choices"][0]["message"]["content"]
        assert content == ANSWER

    return send


def test_kill_9_of_a_pod_fails_no_unary_request(
    pods: list[Process], gateways: list[Process], revive: Callable[[Process], None]
) -> None:
    grpc, rest = (lambda: gateways[0].grpc_address), (lambda: gateways[0].http_address)
    with traffic([grpc_unary(grpc)] * 2 + [rest_unary(rest)] * 2) as result:
        result.wait_served(20)
        pods[0].kill()
        result.wait_served(100)
    assert result.failures == []
    revive(pods[0])


def test_kill_9_of_a_pod_between_streams_fails_no_stream(
    pods: list[Process], gateways: list[Process], revive: Callable[[Process], None]
) -> None:
    with traffic([grpc_stream(lambda: gateways[0].grpc_address)] * 4) as result:
        result.wait_served(20)
        with result.between_requests():
            pods[0].kill()
        result.wait_served(100)
    assert result.failures == []
    revive(pods[0])


def test_sigterm_of_a_pod_fails_no_request(
    pods: list[Process], gateways: list[Process], revive: Callable[[Process], None]
) -> None:
    grpc, rest = (lambda: gateways[0].grpc_address), (lambda: gateways[0].http_address)
    with traffic([grpc_stream(grpc), grpc_unary(grpc), rest_unary(rest)]) as result:
        result.wait_served(20)
        pods[1].signal(signal.SIGTERM)
        assert pods[1].wait() == 0
        result.wait_served(20)
    assert result.failures == []
    revive(pods[1])


def test_sigterm_of_a_gateway_fails_no_request(
    gateways: list[Process], revive: Callable[[Process], None]
) -> None:
    """Clients choose a ready gateway for each request, as a Service or load balancer does."""

    def ready() -> Process:
        return next(g for g in gateways if g.is_ready())

    grpc, rest = (lambda: ready().grpc_address), (lambda: ready().http_address)
    with traffic([grpc_stream(grpc), grpc_unary(grpc), rest_unary(rest)]) as result:
        result.wait_served(20)
        gateways[0].signal(signal.SIGTERM)
        assert gateways[0].wait() == 0
        result.wait_served(20)
        revive(gateways[0])
        result.wait_served(20)
    assert result.failures == []
