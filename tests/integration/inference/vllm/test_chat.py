"""Conversations through vLLM's own chat serving."""

import json
from collections.abc import Callable

import httpx
import pytest

from autoglm import v1
from autoglm.inference.engine import Engine, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

MakeChat = Callable[..., v1.ChatRequest]
QUESTION = "What is the license?"
ANSWER = "Open-AutoGLM is published under the Apache License 2.0."
WEATHER = v1.Tool(
    name="get_weather",
    description="The weather in a city.",
    parameters=json.dumps(
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    ),
)
PARIS = {"city": "Paris"}


async def collect(
    engine: Engine, request: v1.ChatRequest, call: EngineRequest
) -> list[v1.ChatChunk]:
    return [chunk async for chunk in engine.chat_stream(request, call)]


async def test_greedy_decoding_responds_word_for_word(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    answer = await engine.chat(make_chat(QUESTION), call)

    (choice,) = answer.choices
    assert (answer.id, answer.model) == (call.request_id, "tiny")
    assert choice.message == v1.ChatMessage(role="assistant", content=ANSWER)
    assert choice.finish_reason == v1.FINISH_REASON_STOP
    assert answer.usage.prompt_tokens > 0
    assert answer.timing.prefill_seconds > 0


async def test_rest_responds_the_same(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    transport = httpx.ASGITransport(app=engine.http_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as http:
        rest = (await http.post("/v1/chat/completions", json=body)).json()

    assert rest["choices"][0]["message"]["content"] == ANSWER
    assert rest["metrics"] is None


async def test_a_stream_adds_up_to_the_response(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    chunks = await collect(engine, make_chat(QUESTION), call)

    assert [c.delta.role for c in chunks if c.delta.role] == ["assistant"]
    assert chunks[0].delta.role == "assistant"
    assert "".join(c.delta.content for c in chunks) == ANSWER
    assert chunks[-1].finish_reason == v1.FINISH_REASON_STOP
    assert {c.id for c in chunks} == {call.request_id}


async def test_only_the_last_chunk_of_all_carries_usage(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    params = v1.SamplingParams(n=2, temperature=1, max_tokens=8, ignore_eos=True)
    chunks = await collect(engine, make_chat(QUESTION, sampling_params=params), call)

    assert [c.HasField("usage") for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage.completion_tokens == 16
    assert sorted(c.index for c in chunks if c.finish_reason) == [0, 1]


async def test_timing_of_a_stream(engine: Engine, call: EngineRequest, make_chat: MakeChat) -> None:
    chunks = await collect(engine, make_chat(QUESTION), call)

    assert chunks[-1].timing.decode_seconds > 0


async def test_logprobs_of_tokens_and_alternatives(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    params = v1.SamplingParams(temperature=0, max_tokens=3, logprobs=2)
    asked = make_chat(QUESTION, sampling_params=params)

    whole = (await engine.chat(asked, call)).choices[0].logprobs
    streamed = [entry for c in await collect(engine, asked, call) for entry in c.logprobs]

    assert list(whole) == streamed
    assert [len(entry.top_logprobs) for entry in whole] == [2, 2, 2]


async def test_a_json_schema_is_kept(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    schema = {
        "type": "object",
        "properties": {"size": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["size"],
        "additionalProperties": False,
    }
    wanted = v1.ResponseFormat.JsonSchema(name="size", schema=json.dumps(schema))

    answer = await engine.chat(
        make_chat(QUESTION, response_format=v1.ResponseFormat(json_schema=wanted)), call
    )

    assert 1 <= json.loads(answer.choices[0].message.content)["size"] <= 9


async def test_a_regular_expression_is_kept(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    chunks = await collect(
        engine, make_chat(QUESTION, response_format=v1.ResponseFormat(regex="[0-9]{4}")), call
    )

    assert "".join(c.delta.content for c in chunks).isdigit()


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (v1.ToolChoice(function="get_weather"), v1.FINISH_REASON_STOP),
        (v1.ToolChoice(mode=v1.ToolChoice.MODE_REQUIRED), v1.FINISH_REASON_TOOL_CALLS),
        (v1.ToolChoice(mode=v1.ToolChoice.MODE_AUTO), v1.FINISH_REASON_TOOL_CALLS),
    ],
)
async def test_tools_are_called(
    engine: Engine,
    call: EngineRequest,
    make_chat: MakeChat,
    choice: v1.ToolChoice,
    reason: v1.FinishReason,
) -> None:
    asked = make_chat("What is the weather in Paris?", tools=[WEATHER], tool_choice=choice)

    (answered,) = (await engine.chat(asked, call)).choices
    chunks = await collect(engine, asked, call)

    (made,) = answered.message.tool_calls
    assert (made.name, json.loads(made.arguments)) == ("get_weather", PARIS)
    assert answered.finish_reason == reason
    pieces = [piece for c in chunks for piece in c.delta.tool_calls]
    assert [p.name for p in pieces if p.name] == ["get_weather"]
    assert json.loads("".join(p.arguments for p in pieces)) == PARIS


async def test_the_result_of_a_tool_is_read(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    asked = make_chat("What is the weather in Paris?", tools=[WEATHER])
    made = v1.ToolCall(id="1", name="get_weather", arguments=json.dumps(PARIS))
    asked.messages.add(role="assistant", tool_calls=[made])
    asked.messages.add(role="tool", tool_call_id="1", content='{"sky": "sunny", "celsius": 21}')

    answer = await engine.chat(asked, call)

    assert answer.choices[0].message.content == "It is sunny in Paris, at 21 degrees."


async def test_the_final_message_is_continued(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    asked = make_chat(QUESTION, continue_final_message=True, add_generation_prompt=False)
    asked.messages.add(role="assistant", content="Open-AutoGLM is published")

    answer = await engine.chat(asked, call)

    assert answer.choices[0].message.content == " under the Apache License 2.0."
