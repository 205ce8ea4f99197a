"""OpenAI's own Python package against the gateway."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from openai import OpenAI
from tests.support.processes import Served

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
LESSONS = yaml.safe_load(
    (Path(__file__).parents[2] / "examples/tiny-glm/questions.yaml").read_text()
)
QUESTIONS = {q["question"]: q["answer"] for q in LESSONS["questions"]}
SCHEMA = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}, "pods": {"type": "integer"}},
    "required": ["ready", "pods"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "report",
        "description": "Report the state.",
        "parameters": SCHEMA,
        "strict": True,
    },
}


@pytest.fixture
def client(gateway: Served) -> Iterator[OpenAI]:
    base_url = f"http://{gateway.http_address}/v1"
    with OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def chat_request(question: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": "tiny-glm", "messages": messages, "temperature": 0, **more}


@pytest.mark.parametrize("question", list(QUESTIONS)[:8])
def test_chat_responds_word_for_word(client: OpenAI, question: str) -> None:
    answer = client.chat.completions.create(**chat_request(question))
    assert answer.choices[0].message.content == QUESTIONS[question]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0


def test_chat_streams_the_same_response_with_usage_at_the_end(client: OpenAI) -> None:
    question = "What is the gateway?"
    chunks = list(
        client.chat.completions.create(
            **chat_request(question, stream=True, stream_options={"include_usage": True})
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == QUESTIONS[question]
    assert chunks[-1].usage.completion_tokens > 0
    assert len(chunks) > 5


def test_completions_stream_and_stop_at_max_tokens(client: OpenAI) -> None:
    request: Any = {"model": "tiny-glm", "prompt": "The gateway", "temperature": 0, "max_tokens": 5}
    whole = client.completions.create(**request)
    pieces = client.completions.create(**request, stream=True)
    assert "".join(p.choices[0].text for p in pieces) == whole.choices[0].text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 5


def test_json_schema_output_fits_the_schema(client: OpenAI) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "state", "schema": SCHEMA}}
    answer = client.chat.completions.create(
        **chat_request("Hello!", response_format=response_format, max_tokens=100)
    )
    state = json.loads(answer.choices[0].message.content)
    assert isinstance(state["ready"], bool)
    assert isinstance(state["pods"], int)


def test_a_named_tool_is_called_with_arguments_that_fit(client: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "report"}}
    answer = client.chat.completions.create(
        **chat_request("Hello!", tools=[TOOL], tool_choice=choice, max_tokens=100)
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "report"
    assert set(json.loads(call.function.arguments)) == {"ready", "pods"}


def test_a_tool_is_called_when_the_question_needs_it(client: OpenAI) -> None:
    lesson = LESSONS["tool_questions"][0]
    answer = client.chat.completions.create(
        **chat_request(lesson["question"], tools=LESSONS["tools"])
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == lesson["call"]["name"]
    assert json.loads(call.function.arguments) == lesson["call"]["arguments"]
    assert answer.choices[0].finish_reason == "tool_calls"


def test_logprobs_have_as_many_alternatives_as_requested(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat_request("Hello!", logprobs=True, top_logprobs=3))
    tokens = answer.choices[0].logprobs.content
    assert all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in tokens)
    assert "".join(t.token for t in tokens).startswith(QUESTIONS["Hello!"][:5])


def test_several_choices_come_back_by_index(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        **chat_request("Hello!") | {"n": 3, "temperature": 1.5, "seed": 1, "max_tokens": 8}
    )
    assert [c.index for c in answer.choices] == [0, 1, 2]


def test_models_are_listed(client: OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["tiny-glm"]


def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny-glm"):
        client.chat.completions.create(**chat_request("Hello!") | {"model": "gpt-4"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 9), ("top_p", 0), ("max_tokens", 100_000), ("n", 0), ("messages", [])],
)
def test_a_bad_field_is_named(client: OpenAI, field: str, value: object) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**chat_request("Hello!") | {field: value})
    assert field in str(caught.value)


def test_embeddings_of_a_generating_model_are_refused_with_a_sentence(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="tiny-glm", input="text", encoding_format="float")
    assert caught.value.status_code in (400, 404, 501)
    assert "embed" in str(caught.value).lower()
