"""Token replay between two engines that batch differently, and where it must refuse."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from autoglm import v1
from autoglm.common import errors
from autoglm.inference import vllm
from autoglm.inference.engine import Engine, EngineOptions, EngineRequest
from autoglm.inference.vllm.replay import engine_patches

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

MakeChat = Callable[..., v1.ChatRequest]
# More than one prefill of the second engine takes.
LONG = "Nothing of this counts. " * 30 + "What is the license?"
TOOL = v1.Tool(
    name="get_replicas",
    description="How many replicas a model runs with.",
    parameters=json.dumps({"type": "object", "properties": {"model": {"type": "string"}}}),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(options: EngineOptions, metrics_kept: None) -> AsyncIterator[Engine]:
    """Takes 64 tokens a step, so that what is replayed comes in pieces."""
    args = {**options.engine_args, "max_num_batched_tokens": 64, "enable_prefix_caching": False}
    started = await vllm.start(dataclasses.replace(options, engine_args=args))
    yield started
    await started.close()


def completion(text: str = LONG, **sampling: Any) -> v1.GenerateRequest:
    params = v1.SamplingParams(**{"temperature": 0, "max_tokens": 40} | sampling)
    return v1.GenerateRequest(model="tiny", text=text, sampling_params=params)


async def collect(engine: Engine, request: v1.GenerateRequest, name: str) -> list[v1.GenerateChunk]:
    return [chunk async for chunk in engine.generate_stream(request, EngineRequest(name))]


def ids(chunks: list[v1.GenerateChunk]) -> list[int]:
    return [i for c in chunks for i in c.token_ids]


def broken(request: Any, *token_ids: int) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.resume.choices.add(token_ids=token_ids)
    return copy


@pytest.mark.parametrize(
    "sampling",
    [
        {"ignore_eos": True},
        {"temperature": 1.1, "seed": 12, "ignore_eos": True, "logprobs": 1},
        {"frequency_penalty": 1.0, "ignore_eos": True},
    ],
    ids=["greedy", "seed", "penalty"],
)
async def test_another_engine_resumes(
    engine: Engine, other: Engine, sampling: dict[str, Any]
) -> None:
    request = completion(**sampling)
    whole = ids(await collect(engine, request, "first"))

    for cut in (1, 17, 38):
        rest = await collect(other, broken(request, *whole[:cut]), f"second-{cut}")
        assert whole[:cut] + ids(rest) == whole
        assert rest[-1].usage.completion_tokens == 40


async def test_a_seed_survives_a_prefill_in_pieces(engine: Engine, other: Engine) -> None:
    request = completion(temperature=1.3, seed=21, ignore_eos=True)

    assert ids(await collect(other, request, "pieces")) == ids(
        await collect(engine, request, "one")
    )


async def until_generated(engine: Engine, name: str) -> None:
    while engine.is_running(name):  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.mark.parametrize("with_tools", [False, True])
async def test_a_stream_that_was_read_slowly_is_resumed(
    engine: Engine, make_chat: MakeChat, with_tools: bool
) -> None:
    request = make_chat("How many replicas does tiny-glm have?", tools=[TOOL] * with_tools)
    delivered: list[v1.ChatChunk] = []
    async for chunk in engine.chat_stream(request, EngineRequest("slow")):
        delivered.append(chunk)
        if len(delivered) == 3:
            await until_generated(engine, "slow")

    assert len(delivered) <= 5, "what waited was not merged"
    fast = [c async for c in engine.chat_stream(request, EngineRequest("fast"))]
    for cut in range(1, len(delivered)):
        resumed = broken(request, *(i for c in delivered[:cut] for i in c.token_ids))
        rest = [c async for c in engine.chat_stream(resumed, EngineRequest(f"on-{cut}"))]
        assert said([*delivered[:cut], *rest]) == said(delivered) == said(fast)


def said(chunks: list[v1.ChatChunk]) -> tuple[str, str, str, list[int], int]:
    calls = [call for c in chunks for call in c.delta.tool_calls]
    return (
        "".join(c.delta.content for c in chunks),
        "".join(call.name for call in calls),
        "".join(call.arguments for call in calls),
        [i for c in chunks for i in c.token_ids],
        chunks[-1].usage.completion_tokens,
    )


@pytest.mark.parametrize(
    ("request_", "token_ids", "reason"),
    [
        (completion(), [10**6], "not in the vocabulary"),
        (completion(max_tokens=2), [5, 6], "reach max_tokens"),
        (completion(), [5, 1], "is a stop token"),
    ],
    ids=["vocabulary", "length", "end of sequence"],
)
async def test_what_cannot_be_exact_is_refused(
    engine: Engine, request_: v1.GenerateRequest, token_ids: list[int], reason: str
) -> None:
    with pytest.raises(errors.ResumeImpossible, match=reason):
        await collect(engine, broken(request_, *token_ids), "refused")


async def test_tokens_behind_a_stop_string_are_refused(engine: Engine) -> None:
    said = ids(await collect(engine, completion("What is the license?"), "whole"))
    stopped = completion("What is the license?", stop=["published"])

    with pytest.raises(errors.ResumeImpossible, match="stop string"):
        await collect(engine, broken(stopped, *said[:9]), "refused")


async def test_a_chat_that_cannot_be_exact_is_refused(engine: Engine, make_chat: MakeChat) -> None:
    with pytest.raises(errors.ResumeImpossible, match="vocabulary"):
        async for _ in engine.chat_stream(
            broken(make_chat("Hello!"), 10**6), EngineRequest("refused")
        ):
            pass


async def test_an_engine_that_restarts_is_found_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_patches, "extra_args", lambda token_ids: {})

    with pytest.raises(errors.ResumeImpossible, match="restarted the request"):
        await collect(engine, broken(completion(), 5, 6), "anew")


async def test_tokens_that_the_grammar_refuses_end_the_request_only(engine: Engine) -> None:
    request = completion("Hello")
    request.response_format.regex = "[0-9]{5}"

    with pytest.raises(errors.AutoGLMError):
        await collect(engine, broken(request, 300, 301), "refused by the grammar")
    assert ids(await collect(engine, completion("Hello", max_tokens=3), "after it"))
