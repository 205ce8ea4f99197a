"""Every way to be refused ends in one of our errors that names the field."""

from collections.abc import Callable

import pytest

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import Engine, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

MakeChat = Callable[..., v1.ChatRequest]
LONG = "one two three " * 2000

SAMPLING = [
    ("top_p", 1.5),
    ("temperature", 3),
    ("n", 0),
    ("presence_penalty", 5),
    ("frequency_penalty", -5),
    ("repetition_penalty", 0),
    ("min_p", 2),
    ("top_k", -5),
    ("max_tokens", 0),
    ("max_tokens", 5000),
    ("min_tokens", 2000),
    ("logprobs", 500),
    ("stop", [""]),
    ("logit_bias", {99999: 1.0}),
    ("stop_token_ids", [99999]),
    ("truncate_prompt_tokens", 5000),
    ("prompt_logprobs", 500),
]

FORMATS = [
    v1.ResponseFormat(regex="["),
    v1.ResponseFormat(grammar="((("),
    v1.ResponseFormat(choice=v1.ResponseFormat.Choice()),
    v1.ResponseFormat(json_schema=v1.ResponseFormat.JsonSchema(schema='{"type": "frob"}')),
]


async def refusals(
    engine: Engine, call: EngineRequest, generate: v1.GenerateRequest, chat: v1.ChatRequest
) -> list[errors.AutoGLMError]:
    """The error of the same request over all four methods."""
    found = []
    for make_chat in (
        lambda: engine.generate(generate, call),
        lambda: anext(aiter(engine.generate_stream(generate, call))),
        lambda: engine.chat(chat, call),
        lambda: anext(aiter(engine.chat_stream(chat, call))),
    ):
        with pytest.raises(errors.AutoGLMError) as refused:
            await make_chat()
        found.append(refused.value)
    return found


@pytest.mark.parametrize(("name", "value"), SAMPLING)
async def test_a_wrong_sampling_parameter_is_named(
    engine: Engine, call: EngineRequest, make_chat: MakeChat, name: str, value: object
) -> None:
    params = v1.SamplingParams(**{name: value})  # type: ignore[arg-type]  # a field by name
    generate = v1.GenerateRequest(text="x", sampling_params=params)

    for refused in await refusals(engine, call, generate, make_chat("x", sampling_params=params)):
        assert isinstance(refused, errors.InvalidRequest)
        assert refused.field == f"sampling_params.{name}"


@pytest.mark.parametrize("wanted", FORMATS)
async def test_a_wrong_response_format_is_named(
    engine: Engine, call: EngineRequest, make_chat: MakeChat, wanted: v1.ResponseFormat
) -> None:
    generate = v1.GenerateRequest(text="x", response_format=wanted)

    for refused in await refusals(engine, call, generate, make_chat("x", response_format=wanted)):
        assert isinstance(refused, errors.InvalidRequest)
        assert refused.field == "response_format"


async def test_a_prompt_too_long_is_reported_in_numbers(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    found = await refusals(engine, call, v1.GenerateRequest(text=LONG), make_chat(LONG))

    assert [refused.field for refused in found] == ["text", "text", "messages", "messages"]
    assert all("1024 tokens" in refused.message for refused in found)


@pytest.mark.parametrize("ids", [[], [7] * 1024, [7] * 2000, [99999]])
async def test_wrong_token_ids_are_named(
    engine: Engine, call: EngineRequest, ids: list[int]
) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        await engine.generate(v1.GenerateRequest(token_ids=v1.TokenIds(ids=ids)), call)

    assert refused.value.field == "token_ids"


async def test_an_unknown_model_is_an_error_with_the_served_names(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    chat = make_chat("x")
    chat.model = "gpt"

    for refused in await refusals(engine, call, v1.GenerateRequest(model="gpt", text="x"), chat):
        assert isinstance(refused, errors.ModelNotFound)
        assert "tiny, tiny-glm" in refused.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tool_choice": v1.ToolChoice(function="f")}, "tool_choice"),
        ({"tools": [v1.Tool(name="f", parameters="{")]}, "tools[0].parameters"),
        ({"chat_template_kwargs": "[1]"}, "chat_template_kwargs"),
        ({"tools": [v1.Tool(name="f")], "tool_choice": v1.ToolChoice(function="g")}, "tool_choice"),
        (
            {
                "response_format": v1.ResponseFormat(
                    json_schema=v1.ResponseFormat.JsonSchema(schema="{")
                )
            },
            "response_format.json_schema.schema",
        ),
    ],
)
async def test_a_wrong_chat_field_is_named(
    engine: Engine, call: EngineRequest, make_chat: MakeChat, fields: dict[str, object], field: str
) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        await engine.chat(make_chat("x", **fields), call)

    assert refused.value.field == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (v1.ChatMessage(role="frob", content="x"), "messages"),
        (v1.ChatMessage(content="x"), "messages[0].role"),
        (v1.ChatMessage(role="user", content="x", parts=[v1.ContentPart(text="y")]), "messages[0]"),
        (v1.ChatMessage(role="user", parts=[v1.ContentPart()]), "messages[0].parts[0]"),
        (v1.ChatMessage(role="user", parts=[v1.ContentPart(image_url="data:,")]), "messages"),
    ],
)
async def test_a_wrong_message_is_named(
    engine: Engine, call: EngineRequest, message: v1.ChatMessage, field: str
) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        await engine.chat(v1.ChatRequest(messages=[message]), call)

    assert refused.value.field == field


async def test_embedding_needs_a_model_that_embeds(engine: Engine, call: EngineRequest) -> None:
    with pytest.raises(errors.Unimplemented, match="tiny does not embed"):
        await engine.embed(v1.EmbedRequest(model="tiny", texts=["x"]), call)


async def test_a_refused_request_leaves_nothing_behind(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    await refusals(engine, call, v1.GenerateRequest(text=LONG), make_chat(LONG))

    assert engine.load().running + engine.load().waiting == 0


async def test_an_unexpected_error_of_the_engine_names_its_cause_and_is_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """vLLM's own class says nothing, so that clients got a 500 with an empty message."""
    from vllm.v1.engine import async_llm

    def fail() -> None:
        try:
            raise TypeError("an odd reason")
        except TypeError as error:
            raise async_llm.EngineGenerateError from error

    with pytest.raises(async_llm.EngineGenerateError, match="TypeError: an odd reason"):
        fail()
    assert "TypeError: an odd reason" in caplog.text
