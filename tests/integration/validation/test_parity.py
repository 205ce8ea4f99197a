"""What vLLM's own request classes accept, the validator accepts, but over its documented bounds."""

from __future__ import annotations

import json
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.soak import examples

from autoglm import v1, validation
from autoglm.common import errors

CONTEXT = 2048
MODEL = v1.Model(name="m", max_model_len=CONTEXT, max_token_bytes=16)
REQUESTS = examples(4000)
NUMBERS = [None, 0, 1, 2, -1, 20, 21, 64, 128, 0.5, 1.0, 1.5, -0.5, 2.5, "1", "0.5", "x", 2049]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SAMPLED: dict[str, list[Any]] = {
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "seed", "priority"), NUMBERS),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "repetition_penalty"), NUMBERS),
    **dict.fromkeys(("max_tokens", "min_tokens", "prompt_logprobs"), NUMBERS),
    "truncate_prompt_tokens": NUMBERS,
    "n": [None, 0, 1, 2, -1, 128, 4096, 1.0, "1", "x"],
    "stop": [None, "", "x", [], ["a", "b"], [""], 5],
    "stop_token_ids": [None, [], [1, 2], ["x"]],
    "logit_bias": [None, {}, {"5": -100.0}, {"x": 1}],
    "response_format": [
        None,
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        {"type": "json_schema"},
        {"type": "other"},
    ],
    "structured_outputs": [
        None,
        {"regex": "a+"},
        {"choice": ["a", "b"]},
        {"json": {"type": "object"}},
        {"json": '{"type": "object"}'},
        {"regex": "a", "choice": ["b"]},
        {"grammar": 'root ::= "a"'},
    ],
    "stream": [True, False],
    "stream_options": [None, {"include_usage": True}],
}
CHAT: dict[str, list[Any]] = SAMPLED | {
    "max_completion_tokens": NUMBERS,
    "top_logprobs": [*NUMBERS, 50],
    "logprobs": [True, False],
    "tools": [None, [], [TOOL]],
    "tool_choice": ["none", "auto", None, "often"],
    "add_generation_prompt": [True, False],
    "continue_final_message": [True, False],
    "messages": [
        [{"role": "user", "content": ""}],
        [{"role": "system", "content": "x"}, {"role": "user", "content": ["plain"]}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
        [{"role": "assistant", "content": None}, {"role": "tool", "content": "x"}],
        [{"role": "document", "content": "x"}, {"role": "ipython", "content": "x"}],
        [{"content": "x"}],
    ],
}
COMPLETION: dict[str, list[Any]] = SAMPLED | {
    "logprobs": [*NUMBERS, 50, True],
    "echo": [True, False],
    "prompt": ["x", ["x", "y"], [1, 2], [[1], [2, 3]], 5, [-1]],
}
START: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
}


def engine_accepts(kind: Any, body: dict[str, Any]) -> bool:
    from vllm.exceptions import VLLMValidationError

    try:
        request = kind.model_validate(json.loads(json.dumps(body)))
        request.build_tok_params(SimpleNamespace(max_model_len=CONTEXT))
        newer = getattr(request, "max_completion_tokens", None)
        most = request.max_tokens if newer is None else newer
        params = request.to_sampling_params(CONTEXT - 1 if most is None else most, {})
    except (VLLMValidationError, ValueError, TypeError):
        return False
    # How many log probabilities there may be is checked against the model's configuration.
    return params is not None


def refusal(path: str, body: dict[str, Any]) -> str:
    try:
        ask = validation.of_openai(path, json.dumps(body).encode())
        validation.validate(ask, MODEL, ["m"])
    except errors.AutoGLMError as error:
        return error.message
    return ""


@pytest.mark.vllm
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", START)
def test_what_the_engine_accepts_passes(path: str) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    chat = path == "/v1/chat/completions"
    kind, values = (ChatCompletionRequest, CHAT) if chat else (CompletionRequest, COMPLETION)
    rng, accepted = Random(1), 0
    for _ in range(REQUESTS):
        fields = rng.sample(sorted(values), rng.randint(1, 3))
        body = {"model": "m"} | START[path] | {name: rng.choice(values[name]) for name in fields}
        if engine_accepts(kind, body):
            accepted += 1
            assert refusal(path, body) == "", body
    assert accepted > REQUESTS / 10
