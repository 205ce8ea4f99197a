"""No request makes a CPU pod compile: every feature of the API without a C++ compiler on PATH.

Each pod is a process of its own, as the environment of this one has a compiler.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.support import processes, without_compiler

from autoglm import v1
from autoglm.v1 import inference_pb2_grpc

MODEL = Path(__file__).parents[4] / "examples/tiny-glm/model"
# A compiled kernel takes 35 s and more; an eager one milliseconds, on a busy machine too.
FIRST_REQUEST_SECONDS = 20.0

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

CHAT = {"model": "tiny-glm", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
TEXT = {"model": "tiny-glm", "max_tokens": 4, "prompt": "Hello"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
TAG = {
    "type": "structural_tag",
    "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}],
    "triggers": ["<f>"],
}


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", CHAT | fields


def text(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", TEXT | fields


# The first one is the one that used to end the pod.
FEATURES = {
    "logprobs": chat(logprobs=True, top_logprobs=5),
    "plain": chat(),
    "stream": chat(stream=True, logprobs=True),
    "text logprobs": text(logprobs=3, echo=True),
    "prompt_logprobs": text(prompt_logprobs=2),
    "chat prompt_logprobs": chat(prompt_logprobs=2),
    "json_object": chat(response_format={"type": "json_object"}),
    "json_schema": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    ),
    "regex": chat(structured_outputs={"regex": "[ab]{1,3}"}),
    "grammar": chat(structured_outputs={"grammar": 'root ::= "a" | "b"'}),
    "choice": chat(structured_outputs={"choice": ["yes", "no"]}),
    "structural_tag": chat(response_format=TAG),
    "tools": chat(tools=[TOOL]),
    "forced tool": chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}}),
    "required tool": chat(tools=[TOOL], tool_choice="required"),
    "n": chat(n=3, temperature=1.0),
    "beam search": text(use_beam_search=True, n=2, temperature=0),
    "min_p": chat(min_p=0.2, temperature=1.0),
    "top_k and top_p": chat(top_k=5, top_p=0.8, temperature=1.0),
    "penalties": chat(presence_penalty=1, frequency_penalty=1, repetition_penalty=1.2),
    "logit_bias": chat(logit_bias={"7": 5}),
    "seed": chat(seed=7, temperature=1.0),
    "stop": chat(stop=["x"], include_stop_str_in_output=True),
    "stop_token_ids": chat(stop_token_ids=[5]),
    "min_tokens": chat(min_tokens=2),
    "bad_words": chat(bad_words=["the"]),
    "allowed_token_ids": text(allowed_token_ids=[5, 6, 7]),
    "ids": chat(return_token_ids=True),
    "suffix": text(suffix="x"),
    "messages": ("/v1/messages", CHAT),
    "responses": ("/v1/responses", {"model": "tiny-glm", "input": "x", "max_output_tokens": 4}),
    "responses with logprobs": (
        "/v1/responses",
        {
            "model": "tiny-glm",
            "input": "x",
            "max_output_tokens": 4,
            "include": ["message.output_text.logprobs"],
        },
    ),
    "tokenize": ("/tokenize", {"model": "tiny-glm", "prompt": "Hello"}),
    "detokenize": ("/detokenize", {"model": "tiny-glm", "tokens": [5, 6]}),
    "render": ("/v1/chat/completions/render", CHAT),
    "embeddings": ("/v1/embeddings", {"model": "tiny-glm", "input": "x"}),
}
POOLING: dict[str, tuple[str, dict[str, Any]]] = {
    "embeddings": ("/v1/embeddings", {"model": "tiny-glm", "input": ["x", "y z"]}),
    "pooling": ("/pooling", {"model": "tiny-glm", "input": "x"}),
    "score": ("/score", {"model": "tiny-glm", "text_1": "x", "text_2": ["y", "z"]}),
    "rerank": ("/rerank", {"model": "tiny-glm", "query": "x", "documents": ["y", "z"]}),
    "dimensions": ("/v1/embeddings", {"model": "tiny-glm", "input": "x", "dimensions": 4}),
}


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, processes.Process]]:
    """By what they do; they start at the same time."""
    logs, programs = tmp_path_factory.mktemp("logs"), tmp_path_factory.mktemp("bin")
    path = without_compiler.path_without_compiler(programs)
    arguments = {
        "generate": ("enable_auto_tool_choice=true", "tool_call_parser=hermes"),
        "pooling": ("runner=pooling", "convert=embed"),
    }
    found = {task: _pod(logs, path, task, *given) for task, given in arguments.items()}
    with processes.running(*found.values()):
        yield found


def _pod(logs: Path, path: Path, name: str, *arguments: str) -> processes.Process:
    base = ("inference", "--model-path", str(MODEL), "--model-name", "tiny-glm")
    flags = [flag for argument in arguments for flag in ("--engine-arg", argument)]
    environment = processes.VLLM_ENVIRONMENT | {"PATH": str(path)}
    return processes.Process(name, [*base, *flags], logs / f"{name}.log", environment)


@pytest.fixture
def pod(pods: dict[str, processes.Process]) -> processes.Process:
    return pods["generate"]


@pytest.fixture
def pooling_pod(pods: dict[str, processes.Process]) -> processes.Process:
    return pods["pooling"]


def _sent(pod: processes.Process, path: str, body: dict[str, Any]) -> tuple[int, str, float]:
    """Status, body and seconds of one request; status 0 where the pod is gone."""
    begin = time.monotonic()
    try:
        found = httpx.post(f"http://{pod.http_address}{path}", json=body, timeout=120)
    except httpx.HTTPError as error:
        return 0, str(error), time.monotonic() - begin
    return found.status_code, found.text, time.monotonic() - begin


def _judge(pod: processes.Process, features: dict[str, tuple[str, dict[str, Any]]]) -> list[str]:
    """Sends each in turn; what went wrong."""
    wrong = []
    for name, (path, body) in features.items():
        code, answer, seconds = _sent(pod, path, body)
        if not (code == 200 or 400 <= code < 500 or code == 501):
            wrong.append(f"{name}: {code} {answer[:300]}")
        if seconds > FIRST_REQUEST_SECONDS:
            wrong.append(f"{name}: took {seconds:.1f} s")
        if code == 200 and '"error"' in answer:
            wrong.append(f"{name}: {answer[:300]}")
    return wrong


def _is_alive(pod: processes.Process) -> bool:
    return pod.child is not None and pod.child.poll() is None and pod.is_ready()


def test_every_feature_works_and_the_pod_stays_ready(pod: processes.Process) -> None:
    assert _judge(pod, FEATURES) == []
    assert _is_alive(pod)


@pytest.mark.parametrize(
    "name",
    ["logprobs", "text logprobs", "prompt_logprobs", "json_schema", "regex", "grammar", "choice",
     "forced tool", "n", "beam search", "penalties", "messages", "responses", "tokenize"],
)  # fmt: skip
def test_what_this_model_can_do_succeeds(pod: processes.Process, name: str) -> None:
    code, answer, _ = _sent(pod, *FEATURES[name])

    assert code == 200, answer


def test_every_feature_of_pooling_works_and_the_pod_stays_ready(
    pooling_pod: processes.Process,
) -> None:
    assert _judge(pooling_pod, POOLING) == []
    assert _is_alive(pooling_pod)


def test_grpc_logprobs_and_labels_work(pod: processes.Process) -> None:
    params = v1.SamplingParams(max_tokens=4, logprobs=3, prompt_logprobs=2)
    with grpc.insecure_channel(pod.grpc_address) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        generated = stub.Generate(
            v1.GenerateRequest(model="tiny-glm", text="x", sampling_params=params)
        )
        labelled = stub.Predict(
            v1.PredictRequest(model_name="tiny-glm", input_data="Hello", labels=["yes", "no"])
        )

    assert len(generated.completions[0].logprobs) == 4
    assert len(labelled.labels) == 2
    assert _is_alive(pod)
