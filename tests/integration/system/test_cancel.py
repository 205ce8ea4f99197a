"""A client that leaves takes its work along: vLLM's own metrics show it."""

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.processes import Process, eventually

from autoglm.client import Client
from autoglm.common import errors

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
# About 2000 tokens: several seconds.
ENDLESS: Any = {"ignore_eos": True, "max_tokens": 2000, "temperature": 0.0}


def gauge(pod: Process, name: str) -> float:
    found = re.search(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", pod.get("/metrics")[1], re.MULTILINE)
    assert found is not None, f"no metric vllm:{name}"
    return float(found[1])


def assert_busy(pod: Process) -> None:
    eventually(lambda: gauge(pod, "num_requests_running") == 1)


def completed(pod: Process) -> float:
    """Requests that have generated all their tokens."""
    name = r'^vllm:request_success_total\{[^}]*finished_reason="length"[^}]*\} (\S+)$'
    found = re.findall(name, pod.get("/metrics")[1], re.MULTILINE)
    assert found, "vLLM counts them no more"
    return sum(map(float, found))


@pytest.fixture(autouse=True)
def no_request_is_completed(pod: Process) -> Iterator[None]:
    """What a request holds is freed because its client has left."""
    before = completed(pod)
    yield
    assert completed(pod) == before


def assert_freed(pod: Process) -> None:
    eventually(lambda: gauge(pod, "num_requests_running") == 0, what="nothing runs")
    eventually(lambda: gauge(pod, "kv_cache_usage_perc") == 0, what="no blocks are held")


def test_a_cancelled_grpc_stream_frees_its_blocks(pod: Process, front: Process) -> None:
    with Client(front.grpc_address) as client:
        stream = client.generate_stream("What is the gateway?", model="tiny-glm", **ENDLESS)
        next(stream)
        assert_busy(pod)
        stream.close()
        assert_freed(pod)


def test_a_passed_deadline_frees_its_blocks(pod: Process, front: Process) -> None:
    with Client(front.grpc_address) as client, pytest.raises(errors.DeadlineExceeded):
        client.generate("What is the gateway?", model="tiny-glm", timeout=0.5, **ENDLESS)
    assert_freed(pod)


def test_a_closed_rest_connection_frees_its_blocks(pod: Process, front: Process) -> None:
    body = {"model": "tiny-glm", "prompt": "What is the gateway?", "stream": True, **ENDLESS}
    connection = http.client.HTTPConnection(front.http_address, timeout=30)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status == 200
        assert response.readline().startswith(b"data:")
        assert_busy(pod)
        response.close()
    assert_freed(pod)


def test_a_cancelled_chat_frees_its_blocks(pod: Process, front: Process) -> None:
    with Client(front.grpc_address) as client:
        stream = client.chat_stream("What is the gateway?", model="tiny-glm", **ENDLESS)
        next(stream)
        assert_busy(pod)
        stream.close()
        assert_freed(pod)
