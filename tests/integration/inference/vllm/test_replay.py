"""Token replay: a stream that is carried on is the undisturbed one, wherever it broke."""

import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import pytest

from autoglm import v1
from autoglm.inference.engine import Engine, EngineRequest
from autoglm.inference.kv import cache_salt

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

MakeChat = Callable[..., v1.ChatRequest]
Chunk = Any
Stream = Callable[[Any], AsyncIterator[Chunk]]
LICENSE = "What is the license?"
CHINESE = "How do you say hello in Chinese?"
REPLICAS = "How many replicas does tiny-glm have?"
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
        "required": ["name", "big"],
    }
)
TOOL = v1.Tool(
    name="get_replicas",
    description="How many replicas a model runs with.",
    parameters=json.dumps(
        {"type": "object", "properties": {"model": {"type": "string"}}, "required": ["model"]}
    ),
)
_numbers = itertools.count(1)


@pytest.fixture
def generate(engine: Engine) -> Stream:
    return lambda r: engine.generate_stream(r, EngineRequest(f"replay-{next(_numbers)}"))


@pytest.fixture
def chat(engine: Engine) -> Stream:
    return lambda r: engine.chat_stream(r, EngineRequest(f"replay-{next(_numbers)}"))


def state(delivered: Iterable[Chunk]) -> v1.Resume:
    """What a gateway knows of a stream that broke behind these chunks."""
    choices: dict[int, v1.ResumedChoice] = {}
    for chunk in delivered:
        choice = choices.setdefault(chunk.index, v1.ResumedChoice(index=chunk.index))
        choice.token_ids.extend(chunk.token_ids)
        choice.finished |= chunk.finish_reason != v1.FINISH_REASON_UNSPECIFIED
    return v1.Resume(choices=choices.values())


def by_choice(chunks: Sequence[Chunk]) -> dict[int, dict[str, Any]]:
    """What a client makes of a stream, by index."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        one = found.setdefault(
            chunk.index,
            {"text": "", "role": "", "reasoning": "", "calls": {}, "ids": [], "logprobs": []},
        )
        one["ids"] += chunk.token_ids
        one["logprobs"] += chunk.logprobs
        if isinstance(chunk, v1.GenerateChunk):
            one["text"] += chunk.text
        else:
            one["role"] += chunk.delta.role
            one["text"] += chunk.delta.content
            one["reasoning"] += chunk.delta.reasoning
            for call in chunk.delta.tool_calls:
                name, arguments = one["calls"].get(call.index, ("", ""))
                one["calls"][call.index] = (name + call.name, arguments + call.arguments)
        if chunk.finish_reason:
            assert "end" not in one, "an answer ends once"
            one["end"] = (chunk.finish_reason, chunk.stop_reason)
    return found


def seen(chunks: Sequence[Chunk], *, exactly: bool = False) -> dict[int, dict[str, Any]]:
    """The same, with what matters of the log-probabilities."""
    found = by_choice(chunks)
    for one in found.values():
        one["logprobs"] = [
            (
                p.token_id,
                p.token,
                p.logprob if exactly else pytest.approx(p.logprob, abs=1e-3),
                [t.token for t in p.top_logprobs],
            )
            for p in one["logprobs"]
        ]
    return found


async def break_everywhere(
    stream: Stream, request: Any, *, every: int = 1, least: int = 1
) -> tuple[list[Chunk], int]:
    """The undisturbed chunks, and at how many places the stream was broken and carried on.

    On a busy machine chunks have several tokens: the stream is read until it has `least` cuts.
    """
    for _ in range(20):
        whole = [chunk async for chunk in stream(request)]
        cuts = range(1, len(whole), every)
        if len(cuts) >= least:
            break
    for cut in cuts:
        broken = type(request)()
        broken.CopyFrom(request)
        broken.resume.CopyFrom(state(whole[:cut]))
        rest = [chunk async for chunk in stream(broken)]
        joined = [*whole[:cut], *rest]
        assert seen(joined, exactly=True) == seen(whole), (
            f"broken behind chunk {cut} of {len(whole)}"
        )
        usage, expected = rest[-1].usage, whole[-1].usage
        assert usage.prompt_tokens == expected.prompt_tokens
        assert usage.completion_tokens == expected.completion_tokens
    return whole, len(cuts)


def completion(text: str = LICENSE, **sampling: Any) -> v1.GenerateRequest:
    params = v1.SamplingParams(**{"temperature": 0, "max_tokens": 40} | sampling)
    return v1.GenerateRequest(model="tiny", text=text, sampling_params=params)


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param({}, id="greedy"),
        pytest.param(
            {"presence_penalty": 1.5, "frequency_penalty": 0.7, "repetition_penalty": 1.3},
            id="penalties",
        ),
        pytest.param({"logprobs": 3}, id="logprobs"),
        pytest.param({"stop": ["the Apache", "zzz"]}, id="stop string"),
        pytest.param({"stop": ["the"], "include_stop_str_in_output": True}, id="stop in text"),
        pytest.param({"min_tokens": 30, "stop": ["published"]}, id="min tokens"),
        pytest.param({"max_tokens": 7}, id="max tokens"),
        pytest.param({"ignore_eos": True}, id="beyond the end"),
        pytest.param({"temperature": 2, "seed": 5, "ignore_eos": True}, id="seed"),
        pytest.param({"temperature": 2, "seed": 5, "top_p": 0.9, "n": 3}, id="seed and n"),
        pytest.param({"temperature": 1, "seed": 9, "n": 2, "logprobs": 1}, id="n"),
        pytest.param({"logit_bias": {300: 5.0, 301: -5.0}}, id="logit bias"),
    ],
)
async def test_a_completion_is_resumed_exactly(generate: Stream, sampling: dict[str, Any]) -> None:
    every = 4 if sampling.get("n") or sampling.get("ignore_eos") else 1
    _, breaks = await break_everywhere(generate, completion(**sampling), every=every, least=3)

    assert breaks >= 3


async def test_the_stream_of_a_tenant_is_resumed_exactly(generate: Stream) -> None:
    with cache_salt.salted("acme"):
        await break_everywhere(generate, completion())


async def test_characters_of_several_tokens_survive(
    generate: Stream, chat: Stream, make_chat: MakeChat
) -> None:
    whole, _ = await break_everywhere(generate, completion(CHINESE))
    assert any(c.token_ids and not c.text for c in whole[:6]), "no character was cut"

    whole, _ = await break_everywhere(chat, make_chat(CHINESE))
    assert by_choice(whole)[0]["text"].startswith("你好！")


FORMATS = [
    v1.ResponseFormat(json_schema=v1.ResponseFormat.JsonSchema(schema=SCHEMA)),
    v1.ResponseFormat(regex="(ab|cd){2,6}-[0-9]{4}"),
    v1.ResponseFormat(choice=v1.ResponseFormat.Choice(values=["red wine", "blue sky", "redder"])),
    v1.ResponseFormat(grammar='root ::= ("yes, " | "no, ") root2\nroot2 ::= [a-z]{5,12}'),
    v1.ResponseFormat(json_object=True),
]


@pytest.mark.parametrize("wanted", FORMATS, ids=lambda f: str(f.WhichOneof("format")))
async def test_a_grammar_is_resumed_where_it_was(
    generate: Stream, chat: Stream, make_chat: MakeChat, wanted: v1.ResponseFormat
) -> None:
    request = completion(temperature=1.5, seed=3, max_tokens=30)
    request.response_format.CopyFrom(wanted)

    await break_everywhere(generate, request, every=2)
    params = request.sampling_params
    await break_everywhere(
        chat, make_chat(LICENSE, sampling_params=params, response_format=wanted), every=2
    )


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param({"logprobs": 2}, id="logprobs"),
        pytest.param({"stop": ["Apache L"]}, id="stop string"),
        pytest.param({"temperature": 1.2, "seed": 4, "n": 2}, id="n"),
        pytest.param({"max_tokens": 6}, id="max tokens"),
    ],
)
async def test_a_chat_is_resumed_exactly(
    chat: Stream, make_chat: MakeChat, sampling: dict[str, Any]
) -> None:
    params = v1.SamplingParams(**{"temperature": 0, "max_tokens": 32} | sampling)

    await break_everywhere(chat, make_chat(LICENSE, sampling_params=params))


@pytest.mark.parametrize(
    "choice",
    [
        v1.ToolChoice(mode=v1.ToolChoice.MODE_AUTO),
        v1.ToolChoice(mode=v1.ToolChoice.MODE_REQUIRED),
        v1.ToolChoice(function="get_replicas"),
        v1.ToolChoice(mode=v1.ToolChoice.MODE_NONE),
    ],
    ids=["auto", "required", "named", "none"],
)
async def test_a_tool_call_is_resumed_exactly(
    chat: Stream, make_chat: MakeChat, choice: v1.ToolChoice
) -> None:
    request = make_chat(REPLICAS, tools=[TOOL], tool_choice=choice)

    whole, _ = await break_everywhere(chat, request)

    calls = by_choice(whole)[0]["calls"]
    none = choice.mode == v1.ToolChoice.MODE_NONE and not choice.function
    assert none or json.loads(calls[0][1]).keys() == {"model"}
