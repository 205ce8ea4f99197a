"""The Open Inference Protocol, spoken by Triton's and KServe's own clients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.processes import Served

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-conformance/bin/python"
CLIENTS = Path(__file__).parent / "clients"
QUESTION = "What is the gateway?"
LESSONS = yaml.safe_load((ROOT / "examples/tiny-glm/questions.yaml").read_text())
ANSWER = next(q["answer"] for q in LESSONS["questions"] if q["question"] == QUESTION)
TRITON_STUBS = "tritonclient.grpc.service_pb2"
KSERVE_STUBS = "kserve.protocol.grpc.grpc_predict_v2_pb2"
OUR_STUBS = "autoglm.v1.open_inference_pb2"


def output_of(python: str | Path, script: str, *arguments: str) -> dict[str, Any]:
    command = [python, CLIENTS / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.fixture(scope="session")
def environment() -> Path:
    """The Python of the clients' own environment."""
    subprocess.run(
        [ROOT / "scripts/python_env", "conformance", "tests/conformance/requirements.txt"],
        check=True,
    )
    return PYTHON


@pytest.fixture(scope="session")
def triton(environment: Path, gateway: Served) -> dict[str, Any]:
    return output_of(environment, "triton.py", gateway.grpc_address, gateway.model, QUESTION)


@pytest.fixture(scope="session")
def kserve(environment: Path, gateway: Served) -> dict[str, Any]:
    return output_of(environment, "kserve_grpc.py", gateway.grpc_address, gateway.model, QUESTION)


@pytest.mark.parametrize("stubs", [TRITON_STUBS, KSERVE_STUBS])
def test_our_fields_have_the_numbers_and_types_of_theirs(environment: Path, stubs: str) -> None:
    theirs = output_of(environment, "descriptors.py", stubs)["messages"]
    ours = output_of(sys.executable, "descriptors.py", OUR_STUBS)["messages"]
    common = [(m, f) for m in ours.keys() & theirs for f in ours[m].keys() & theirs[m]]
    assert len(common) > 40
    assert {c: ours[c[0]][c[1]] for c in common} == {c: theirs[c[0]][c[1]] for c in common}


def test_our_methods_are_those_of_triton(environment: Path) -> None:
    theirs = output_of(environment, "descriptors.py", TRITON_STUBS)
    ours = output_of(sys.executable, "descriptors.py", OUR_STUBS)
    name = "inference.GRPCInferenceService"
    assert ours["services"][name].items() <= theirs["services"][name].items()


def test_triton_finds_server_and_model_ready(triton: dict[str, Any]) -> None:
    server = triton["server"]
    assert (server["live"], server["ready"], server["model_ready"]) == (True, True, True)
    assert server["metadata"]["name"] == "open-autoglm"


def test_triton_reads_the_tensors_of_the_model(triton: dict[str, Any], gateway: Served) -> None:
    metadata = triton["server"]["model_metadata"]
    assert metadata["name"] == gateway.model
    text = {"datatype": "BYTES", "shape": ["1"]}
    assert {"name": "text_input", **text} in metadata["inputs"]
    assert {"name": "text_output", **text} in metadata["outputs"]


def test_triton_infers_the_response_word_for_word(triton: dict[str, Any], gateway: Served) -> None:
    assert triton["infer"] == {"text": ANSWER, "id": "one", "model_name": gateway.model}


def test_triton_sends_a_bare_prompt(triton: dict[str, Any]) -> None:
    assert triton["raw_prompt"].strip() == ANSWER


def test_parameters_reach_the_engine(triton: dict[str, Any], kserve: dict[str, Any]) -> None:
    shortened = triton["shortened"]
    assert shortened == kserve["shortened"]["text"]
    assert ANSWER.startswith(shortened) and len(shortened) < len(ANSWER)


@pytest.mark.parametrize("name", ["first", "last"])
def test_triton_streams_pieces_and_a_final_mark(triton: dict[str, Any], name: str) -> None:
    pieces = triton["streams"][name]
    assert "".join(piece["text"] for piece in pieces) == ANSWER
    assert len(pieces) > 1
    assert [piece["final"] for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_one_refused_request_leaves_the_stream_open(triton: dict[str, Any]) -> None:
    errors = triton["streams"]["errors"]
    assert len(errors) == 1
    assert "top_p" in errors[0]


def test_triton_streams_with_asyncio(triton: dict[str, Any]) -> None:
    assert "".join(triton["aio_stream"]) == ANSWER


def test_kserve_finds_server_and_model_ready(kserve: dict[str, Any]) -> None:
    assert (kserve["live"], kserve["ready"], kserve["model_ready"]) == (True, True, True)


@pytest.mark.parametrize(("form", "request_id"), [("infer", "one"), ("raw", "raw")])
def test_kserve_infers_the_response_word_for_word(
    kserve: dict[str, Any], gateway: Served, form: str, request_id: str
) -> None:
    """With the text in the tensor, and with it in raw_input_contents."""
    assert kserve[form] == {
        "text": ANSWER,
        "id": request_id,
        "model_name": gateway.model,
        "output": "text_output",
    }


@pytest.mark.parametrize("client", ["triton", "kserve"])
def test_refusals_have_a_status_and_a_sentence(client: str, request: pytest.FixtureRequest) -> None:
    seen = request.getfixturevalue(client)
    assert seen["bad_parameter"]["status"] == "StatusCode.INVALID_ARGUMENT"
    assert "top_p" in seen["bad_parameter"]["message"]
    assert seen["unknown_model"]["status"] == "StatusCode.NOT_FOUND"
    assert "no-such-model" in seen["unknown_model"]["message"]
