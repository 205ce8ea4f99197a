"""The example clients of examples/clients, built from protos/ alone and run against the gateway."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.prerequisites import built
from tests.support.processes import Served

# The first build compiles buf, the Go plugins and gRPC for Go.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples/clients"
COMMANDS: dict[str, list[str | Path]] = {
    "python": [CLIENTS / "python/.venv/bin/python", CLIENTS / "python/client.py"],
    "go": [CLIENTS / "go/bin/client"],
    "typescript": ["node", CLIENTS / "typescript/dist/client.js"],
}
INVALID_ARGUMENT = 3
QUESTION = "What is the gateway?"
LESSONS = yaml.safe_load((ROOT / "examples/tiny-glm/questions.yaml").read_text())
ANSWER = next(q["answer"] for q in LESSONS["questions"] if q["question"] == QUESTION)


@pytest.fixture(scope="session", params=list(COMMANDS))
def language(request: pytest.FixtureRequest) -> str:
    """A client that has been built; the test is skipped where a tool is missing, except in CI."""
    name = str(request.param)
    built("example_clients", name)
    return name


def call(language: str, address: str, model: str, *more: str) -> subprocess.CompletedProcess[str]:
    asked = ("--address", address, "--model", model, "--question", QUESTION)
    command = [*COMMANDS[language], *asked, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def result(language: str, gateway: Served) -> dict[str, Any]:
    """The last line of a client's output."""
    done = call(language, gateway.grpc_address, gateway.model)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["client"] == language
    return found


def test_models_are_listed(result: dict[str, Any], gateway: Served) -> None:
    assert gateway.model in result["models"]


def test_chat_streams_the_response_word_for_word(result: dict[str, Any]) -> None:
    chat = result["chat"]
    assert chat["text"] == ANSWER
    assert chat["finish_reason"] == "FINISH_REASON_STOP"
    assert chat["chunks"] > 1


def test_raw_prompt_is_completed(result: dict[str, Any]) -> None:
    assert result["generate"]["text"].strip() == ANSWER


@pytest.mark.parametrize("method", ["generate", "chat"])
def test_tokens_are_counted(result: dict[str, Any], method: str) -> None:
    assert all(count > 0 for count in result[method]["usage"].values())


@pytest.mark.parametrize("method", ["generate", "chat"])
def test_request_id_comes_back(result: dict[str, Any], method: str) -> None:
    assert result[method]["request_id"] == result[method]["request_id_sent"] != ""


def test_refusal_names_the_field(result: dict[str, Any]) -> None:
    error = result["error"]
    assert error.pop("message")
    assert error == {
        "code": INVALID_ARGUMENT,
        "reason": "INVALID_REQUEST",
        "field": "sampling_params.top_p",
    }


def test_unknown_model_ends_with_a_sentence(language: str, gateway: Served) -> None:
    done = call(language, gateway.grpc_address, "no-such-model")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_deadline_ends_the_call(language: str, gateway: Served) -> None:
    done = call(language, gateway.grpc_address, gateway.model, "--timeout", "0.001")
    assert done.returncode == 1
    assert "deadline" in done.stderr.lower()


def test_unreachable_address_ends_with_a_sentence(language: str, gateway: Served) -> None:
    done = call(language, "127.0.0.1:1", gateway.model)
    assert done.returncode == 1
    assert "refused" in done.stderr.lower()
