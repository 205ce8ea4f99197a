"""Tools that know nothing of Open-AutoGLM: health probes, and clients that go by reflection."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.prerequisites import go_tool
from tests.support.processes import Served

# The first run builds the Go tools.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).parent / "clients"
SERVICES = {
    "autoglm.v1.Inference",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
}
QUESTION = "What is the gateway?"
LESSONS = yaml.safe_load((ROOT / "examples/tiny-glm/questions.yaml").read_text())
ANSWER = next(q["answer"] for q in LESSONS["questions"] if q["question"] == QUESTION)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def probe() -> Path:
    return go_tool("grpc-health-probe")


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    return go_tool("grpcurl")


@pytest.fixture(params=["gateway", "pod"])
def address(request: pytest.FixtureRequest, gateway: Served) -> str:
    return gateway.grpc_address if request.param == "gateway" else gateway.pod_grpc_address


@pytest.mark.parametrize("service", ["", "autoglm.v1.Inference", "tiny-glm"])
def test_health_probe_finds_serving(probe: Path, address: str, service: str) -> None:
    done = run(probe, f"-addr={address}", f"-service={service}")
    assert done.returncode == 0, done.stderr
    assert "SERVING" in done.stdout + done.stderr


def test_health_probe_reports_an_unknown_service(probe: Path, address: str) -> None:
    assert run(probe, f"-addr={address}", "-service=no-such-service").returncode != 0


def test_grpcurl_lists_the_services(grpcurl: Path, address: str) -> None:
    done = run(grpcurl, "-plaintext", address, "list")
    assert set(done.stdout.split()) >= SERVICES, done.stderr


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("autoglm.v1.Inference", "rpc ChatStream ( .autoglm.v1.ChatRequest ) returns ( stream"),
        ("autoglm.v1.Inference.Chat", "rpc Chat ( .autoglm.v1.ChatRequest )"),
        ("autoglm.v1.SamplingParams", "optional float temperature = 5;"),
        ("inference.GRPCInferenceService", "rpc ModelInfer ( .inference.ModelInferRequest )"),
    ],
)
def test_grpcurl_describes(grpcurl: Path, address: str, symbol: str, expected: str) -> None:
    done = run(grpcurl, "-plaintext", address, "describe", symbol)
    assert expected in done.stdout, done.stderr


def test_grpcurl_streams_a_chat(grpcurl: Path, address: str) -> None:
    asked = {
        "model": "tiny-glm",
        "messages": [{"role": "user", "content": QUESTION}],
        "sampling_params": {"temperature": 0},
    }
    method = "autoglm.v1.Inference/ChatStream"
    done = run(grpcurl, "-plaintext", "-d", json.dumps(asked), address, method)
    assert done.returncode == 0, done.stderr
    deltas = [chunk.get("delta", {}) for chunk in documents(done.stdout)]
    assert "".join(delta.get("content", "") for delta in deltas) == ANSWER


def test_grpcurl_shows_the_wrong_field(grpcurl: Path, address: str) -> None:
    """The details of the error decode without our stubs, too."""
    asked = json.dumps({"model": "tiny-glm", "text": "Hello!", "sampling_params": {"top_p": 2}})
    done = run(grpcurl, "-plaintext", "-d", asked, address, "autoglm.v1.Inference/Generate")
    assert done.returncode != 0
    assert "InvalidArgument" in done.stderr
    assert "sampling_params.top_p" in done.stderr


def test_client_without_stubs_learns_the_api_and_chats(address: str) -> None:
    subprocess.run(
        [ROOT / "scripts/python_env", "conformance", "tests/conformance/requirements.txt"],
        check=True,
    )
    python = ROOT / ".venv-conformance/bin/python"
    done = run(python, CLIENTS / "reflect.py", address, "tiny-glm", QUESTION)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen["services"]) >= SERVICES
    assert {"Chat", "ChatStream", "Generate", "GenerateStream"} <= set(seen["methods"])
    assert [model["name"] for model in seen["models"]["models"]] == ["tiny-glm"]
    assert seen["chat"]["choices"][0]["message"]["content"] == ANSWER


def documents(text: str) -> list[dict[str, Any]]:
    """JSON documents that follow each other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        found.append(document)
    return found
