"""A gateway whose Envoy another supervisor runs, as kubelet restarts a sidecar."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.gateway.envoy import program
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = [pytest.mark.timeout(120), pytest.mark.plane("envoy")]
TEXT = "Hello, how are you?"


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    pod = processes.echo_pod(tmp_path_factory.mktemp("sidecar"))
    with processes.running(pod):
        yield pod


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """The directory of a sidecar that runs as the chart has it."""
    envoy, config = shlex.quote(program.find()), tmp_path / "shared/envoy.yaml"
    once = (
        f"until [ -e {config} ]; do sleep 0.1; done; {envoy} -c {config} --concurrency 1 "
        "--disable-hot-restart --drain-strategy immediate --log-level warning"
    )
    config.parent.mkdir()
    with (tmp_path / "sidecar.log").open("wb") as log:
        script = ["sh", "-c", f"while :; do {once}; done"]
        child = subprocess.Popen(script, stdout=log, stderr=log, start_new_session=True)
    yield config.parent
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@pytest.fixture
def gateway(tmp_path: Path, pod: Process, shared: Path) -> Iterator[Process]:
    flags = ("--data-plane", "envoy", "--envoy-directory", str(shared))
    gateway = processes.gateway(tmp_path, [pod], *flags)
    with processes.running(gateway):
        processes.eventually(lambda: gateway.ready_endpoints() == 1)
        yield gateway


def check_responses(gateway: Process) -> None:
    """On both wires, by Envoy."""
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        request = v1.GenerateRequest(model="echo", text=TEXT)
        answer = InferenceStub(channel).Generate(request, timeout=10, wait_for_ready=True)
        assert answer.completions[0].text == TEXT
    body = json.dumps({"model": "echo", "prompt": TEXT}).encode()
    url = f"http://{gateway.http_address}/v1/completions"
    rest = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(rest, timeout=10) as page:
        assert json.load(page)["choices"][0]["text"] == TEXT
        assert page.headers["x-autoglm-data-plane"].startswith("envoy")


def test_gateway_that_is_killed_and_started_again_has_its_envoy_with_it(gateway: Process) -> None:
    check_responses(gateway)
    gateway.kill()
    gateway.start().wait_ready()
    processes.eventually(lambda: gateway.ready_endpoints() == 1)
    check_responses(gateway)


def test_gateway_that_is_stopped_ends_its_envoy_and_can_come_back(
    gateway: Process, shared: Path
) -> None:
    check_responses(gateway)
    assert gateway.stop() == 0
    assert not (shared / "envoy.yaml").exists()
    gateway.start().wait_ready()
    processes.eventually(lambda: gateway.ready_endpoints() == 1)
    check_responses(gateway)
