"""What one tenant's prompts have left in the KV cache shows others nothing: vLLM, echo, Envoy.

Sizes are in blocks of the engine, as `cached_tokens` is; tokens of a prompt are not asserted.
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support import processes
from tests.support.processes import Process, eventually
from tests.support.tenants import api_keys

from autoglm import v1
from autoglm.common import rpc
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(900)
SECRET = "The merger with Initech closes on 12 March at 42 dollars a share. " * 6


@dataclass
class Stage:
    pod: Process
    gateway: Process
    shared: Process
    keys: dict[str, str]

    def generate(self, who: str, text: str, gateway: Process | None = None) -> int:
        """Cached tokens of a request by gRPC."""
        request = v1.GenerateRequest(model=self.model, text=text)
        request.sampling_params.max_tokens = 1
        address = (gateway or self.gateway).grpc_address
        with grpc.insecure_channel(address) as channel:
            found = InferenceStub(channel).Generate(
                request, metadata=((rpc.API_KEY, self.keys[who]),), timeout=60
            )
        return found.usage.cached_tokens

    def post(
        self, who: str, path: str, body: dict[str, Any], address: str = "", **headers: str
    ) -> Any:
        url = f"http://{address or self.gateway.http_address}{path}"
        sent = {"content-type": "application/json", rpc.API_KEY: self.keys[who], **headers}
        data = json.dumps({"model": self.model, "max_tokens": 1, **body}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, sent), timeout=60) as found:
            return json.load(found)

    @property
    def model(self) -> str:
        return "echo" if "echo" in self.pod.name else "tiny-glm"


@pytest.fixture(scope="module", params=["vllm", "echo", "envoy"])
def stage(request: pytest.FixtureRequest, directory: Path) -> Iterator[Stage]:
    """An engine behind the embedded data plane, and echo behind Envoy."""
    if request.param == "vllm":
        pod = request.getfixturevalue("pod")
        own_pods = []
    else:
        pod = processes.echo_pod(directory, f"isolated-{request.param}-echo")
        own_pods = [pod]
    keys_file = directory / f"keys-{request.param}.json"
    keys = api_keys(keys_file, ("acme", "evil"))
    plane = "envoy" if request.param == "envoy" else "embedded"
    flags = ("--api-keys-file", str(keys_file), "--route-debug", "--data-plane", plane)
    own = processes.gateway(directory, [pod], *flags)
    shared = processes.gateway(directory, [pod], *flags, "--prefix-cache", "Shared")
    shared.name, shared.log = "shared-gateway", directory / "shared-gateway.log"
    with processes.running(*own_pods, own, shared):
        for gateway in (own, shared):
            eventually(lambda g=gateway: g.ready_endpoints() > 0, what="the pod is known")  # type: ignore[misc]  # of this round
        yield Stage(pod, own, shared, keys)


def test_a_right_guess_at_anothers_prompt_is_like_a_wrong_one(stage: Stage) -> None:
    secret = f"{uuid.uuid4().hex} {SECRET}"
    for _ in range(2):
        own = stage.generate("acme", secret)

    right = stage.generate("evil", secret)
    wrong = stage.generate("evil", f"{uuid.uuid4().hex} {SECRET}")

    assert own > 0
    assert right == wrong == 0


def test_a_tenant_finds_its_own_prompts_and_no_more_after_others_have_sent_them(
    stage: Stage,
) -> None:
    text = f"{uuid.uuid4().hex} {SECRET}"

    first = [stage.generate(who, text) for who in ("acme", "evil")]
    second = [stage.generate(who, text) for who in ("acme", "evil")]

    assert first == [0, 0]
    assert second[0] == second[1] > 0


def test_a_model_whose_cache_is_shared_is_fast_for_all(stage: Stage) -> None:
    text = f"{uuid.uuid4().hex} {SECRET}"

    assert stage.generate("acme", text, stage.shared) == 0
    assert stage.generate("evil", text, stage.shared) > 0


def test_gateways_know_which_blocks_a_tenant_has(stage: Stage) -> None:
    """By the pod's KV-cache events, which the salt must not break."""
    text = f"{uuid.uuid4().hex} {SECRET * 3}"
    body = {"messages": [{"role": "user", "content": text}]}

    def held(who: str) -> int:
        found = stage.post(who, "/v1/chat/completions", body, **{rpc.DEBUG_HEADER: "explain"})
        (candidate,) = found["candidates"]
        return int(candidate["blocks_held"]) if candidate["blocks_are_exact"] else -1

    eventually(lambda: held("acme") == 0, what="the pod says what it has")
    stage.post("acme", "/v1/chat/completions", body)
    eventually(lambda: held("acme") >= 2, what="the tenant's blocks are known")
    assert held("evil") == 0


REST: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": ""},
    "/v1/chat/completions": {"messages": []},
    "/v1/responses": {"input": ""},
    "/v1/messages": {"messages": []},
}


@pytest.mark.parametrize("path", REST)
def test_every_api_of_vllm_is_isolated(stage: Stage, path: str) -> None:
    if stage.model == "echo" and path in ("/v1/responses", "/v1/messages"):
        pytest.skip("the echo engine has no such API")
    text = f"{uuid.uuid4().hex} {SECRET}"
    (field,) = REST[path]
    sent = [{"role": "user", "content": text}] if field == "messages" else text
    body = {field: sent} | ({"max_output_tokens": 1} if path == "/v1/responses" else {})

    def cached(who: str, **more: Any) -> int:
        used = stage.post(who, path, body | more)["usage"]
        details = used.get("prompt_tokens_details") or used.get("input_tokens_details") or {}
        return int(details.get("cached_tokens", 0) or used.get("cache_read_input_tokens", 0) or 0)

    first, second = cached("acme"), cached("acme")
    others = cached("evil")

    assert second > first
    assert others == first


def test_a_salt_of_the_clients_own_only_adds_to_the_tenants(stage: Stage) -> None:
    if stage.model == "echo":
        pytest.skip("the echo engine takes no cache_salt")
    text = f"{uuid.uuid4().hex} {SECRET}"

    def cached(who: str, salt: str) -> int:
        used = stage.post(who, "/v1/completions", {"prompt": text, "cache_salt": salt})["usage"]
        return int((used["prompt_tokens_details"] or {}).get("cached_tokens", 0))

    assert cached("acme", "one") == 0
    assert cached("acme", "one") > 0
    assert cached("acme", "two") == cached("evil", "one") == 0


def test_a_request_to_the_pod_itself_is_unsalted(stage: Stage) -> None:
    text = f"{uuid.uuid4().hex} {SECRET}"
    for _ in range(2):
        stage.generate("acme", text)

    with grpc.insecure_channel(stage.pod.grpc_address) as channel:
        request = v1.GenerateRequest(model=stage.model, text=text)
        request.sampling_params.max_tokens = 1
        found = [InferenceStub(channel).Generate(request, timeout=60) for _ in range(2)]

    assert found[0].usage.cached_tokens == 0
    assert found[1].usage.cached_tokens > 0
