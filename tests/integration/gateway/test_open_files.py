"""A gateway that may have few files open, and clients that take all the connections they get."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import rpc
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(120)
FILES = 256
FITTING = (FILES - 64) // 2
# Each may have 16 connections.
ADDRESSES = FITTING // 16 + 1
BODY = b'{"model":"echo","prompt":"Hello","max_tokens":1}'


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Process]:
    pod = processes.echo_pod(tmp_path)
    with processes.running(pod):
        gateway = processes.gateway(tmp_path, [pod])
        addresses = (gateway.grpc_address, gateway.http_address, gateway.metrics_address)
        flags = zip(("grpc", "http", "metrics"), addresses, strict=True)
        command = [sys.executable, "-m", "autoglm", *gateway.arguments]
        command += [text for name, address in flags for text in (f"--{name}-address", address)]
        limited = ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh", *command]
        with gateway.log.open("ab") as log:
            gateway.child = subprocess.Popen(limited, stdout=log, stderr=log)
        try:
            gateway.wait_ready()
            processes.eventually(lambda: gateway.ready_endpoints() == 1)
            yield gateway
        finally:
            gateway.stop()


def begun(host: str, port: int, number: int) -> socket.socket:
    """Return a connection with half a head, of one of several addresses."""
    source = (f"127.0.1.{1 + number % ADDRESSES}", 0)
    connection = socket.create_connection((host, port), 20, source_address=source)
    connection.sendall(b"GET /v1/models HTTP/1.1\r\n")
    return connection


def complete_on_new_connection(host: str, port: int) -> int:
    with closing(http.client.HTTPConnection(host, port, timeout=20)) as connection:
        return complete(connection)


def complete(connection: http.client.HTTPConnection) -> int:
    connection.request("POST", "/v1/completions", BODY, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def test_idle_connections_beyond_the_limit_of_files_cost_no_pod(gateway: Process) -> None:
    host, port = gateway.http_address.split(":")
    with ExitStack() as stack:
        early = http.client.HTTPConnection(host, int(port), timeout=20)
        stack.enter_context(closing(early))
        assert complete(early) == 200
        for _ in range(400):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        assert complete_on_new_connection(host, int(port)) == 200
        for number in range(200):
            stack.enter_context(begun(host, int(port), number))
        with rpc.sync_channel(gateway.grpc_address) as channel:
            request = v1.GenerateRequest(
                model="echo", text="Hello", sampling_params=v1.SamplingParams(max_tokens=1)
            )
            assert InferenceStub(channel).Generate(request, timeout=20).usage.completion_tokens == 1
        assert complete_on_new_connection(host, int(port)) == 429
        assert gateway.get("/health/ready")[0] == 200
        assert gateway.ready_endpoints() == 1
    processes.eventually(lambda: complete_on_new_connection(host, int(port)) == 200)
    log = gateway.log.read_text()
    assert f"may have {FILES} files open: {FITTING} connections a port are accepted" in log
    assert not re.search(r"\bejected|Too many open files", log)
