"""kill -9 of a pod under streams of tenants: each resumes with its own tokens, in its own cache."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from tests.support import processes
from tests.support.processes import Process
from tests.support.tenants import api_keys

from autoglm import v1
from autoglm.common import rpc
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(180)
TENANTS = ("acme", "evil")
TEXT = " ".join(f"wörd{number}" for number in range(40))
TOKENS = 90
PIECES = 20
"""So many of each stream have been read when its pod is killed."""


@dataclass(frozen=True, slots=True)
class Stage:
    gateway: Process
    pods: Sequence[Process]
    keys: dict[str, str]

    def generate(self, tenant: str, on_piece: Callable[[], None]) -> str:
        with grpc.insecure_channel(self.gateway.grpc_address) as channel:
            metadata = ((rpc.API_KEY, self.keys[tenant]),)
            stream = InferenceStub(channel).GenerateStream(
                _request(TEXT, TOKENS), metadata=metadata, timeout=90
            )
            pieces = []
            for chunk in stream:
                pieces.append(chunk.text)
                on_piece()
        return "".join(pieces)

    def complete(self, tenant: str, on_piece: Callable[[], None]) -> str:
        body = {"model": "echo", "prompt": TEXT, "max_tokens": TOKENS, "stream": True}
        headers = {"content-type": "application/json", rpc.API_KEY: self.keys[tenant]}
        url = f"http://{self.gateway.http_address}/v1/completions"
        sent = urllib.request.Request(url, json.dumps(body).encode(), headers)
        pieces = []
        with urllib.request.urlopen(sent, timeout=90) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    pieces.append(json.loads(line[6:])["choices"][0]["text"])
                    on_piece()
        return "".join(pieces)

    def cached(self, tenant: str) -> int:
        """Cached tokens of the same prompt."""
        with grpc.insecure_channel(self.gateway.grpc_address) as channel:
            metadata = ((rpc.API_KEY, self.keys[tenant]),)
            found = InferenceStub(channel).Generate(
                _request(TEXT, 1), metadata=metadata, timeout=90
            )
        return found.usage.cached_tokens


def _request(text: str, tokens: int) -> v1.GenerateRequest:
    params = v1.SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    return v1.GenerateRequest(model="echo", text=text, sampling_params=params)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    keys = api_keys(tmp_path / "keys.json", (*TENANTS, "other"))
    pods = [processes.echo_pod(tmp_path, f"echo-{n}", "--echo-token-rate", "20") for n in range(2)]
    gateway = processes.gateway(tmp_path, pods, "--api-keys-file", str(tmp_path / "keys.json"))
    with processes.running(*pods, gateway):
        processes.eventually(lambda: gateway.ready_endpoints() == 2)
        yield Stage(gateway, pods, keys)


def test_streams_of_tenants_resume_each_in_its_own_cache(stage: Stage) -> None:
    read = threading.Semaphore(0)

    def undisturbed() -> None:
        """Nothing is to be done at a piece."""

    expected = stage.generate("acme", undisturbed)
    with ThreadPoolExecutor(4) as pool:
        streams = [
            pool.submit(way, tenant, read.release)
            for tenant in TENANTS
            for way in (stage.generate, stage.complete)
        ]
        for _ in range(PIECES * len(streams)):
            assert read.acquire(timeout=60)
        busiest = max(stage.pods, key=lambda pod: pod.metric("vllm:num_requests_running"))
        assert busiest.metric("vllm:num_requests_running") > 0
        busiest.kill()
        found = [stream.result() for stream in streams]

    assert len(expected.split()) > PIECES
    assert found == [expected] * len(streams)
    assert stage.gateway.metric("autoglm_gateway_recoveries_total") >= 1
    processes.eventually(lambda: stage.gateway.ready_endpoints() == 1)
    assert stage.cached("other") == 0
    assert stage.cached("acme") > 0
