"""Tokens that are not taken stay in vLLM's front end, and none is lost, doubled or late."""

import asyncio
from collections.abc import Callable

import pytest

from autoglm import v1
from autoglm.inference.engine import Engine, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]
MakeChat = Callable[..., v1.ChatRequest]
TOKENS = 60


def generate_request(**sampling: object) -> v1.GenerateRequest:
    params = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, "logprobs": 1}
    return v1.GenerateRequest(
        text="What is the gateway?",
        sampling_params=v1.SamplingParams(**params | sampling),  # type: ignore[arg-type]  # fields by name
    )


async def more_tokens(engine: Engine, count: int) -> None:
    """Until the request has so many more, or has ended."""
    wanted = engine.load().tokens_in_flight + count
    while 0 < engine.load().tokens_in_flight < wanted:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def held(
    engine: Engine, request: v1.GenerateRequest, call: EngineRequest
) -> list[v1.GenerateChunk]:
    """The stream's chunks, with five tokens held between any two."""
    chunks: list[v1.GenerateChunk] = []
    async for chunk in engine.generate_stream(request, call):
        chunks.append(chunk)
        engine.hold(call.request_id)
        await more_tokens(engine, 5)
        engine.release(call.request_id)
    return chunks


def joined(chunks: list[v1.GenerateChunk], index: int = 0) -> tuple[str, list[int], list[float]]:
    mine = [c for c in chunks if c.index == index]
    return (
        "".join(c.text for c in mine),
        [i for c in mine for i in c.token_ids],
        [round(p.logprob, 4) for c in mine for p in c.logprobs],
    )


@pytest.mark.parametrize(
    "sampling", [{}, {"stop": ["gateway"]}, {"n": 2, "temperature": 1, "seed": 3}]
)
async def test_a_held_stream_says_what_the_undisturbed_one_says(
    engine: Engine, call: EngineRequest, sampling: dict[str, object]
) -> None:
    whole = await engine.generate(generate_request(**sampling), call)
    chunks = await held(engine, generate_request(**sampling), call)
    for wanted in whole.completions:
        text, ids, logprobs = joined(chunks, wanted.index)
        assert text == wanted.text
        assert ids == list(wanted.token_ids)
        assert logprobs == pytest.approx([p.logprob for p in wanted.logprobs], abs=1e-3)


async def test_what_was_held_comes_as_one_chunk_at_once(
    engine: Engine, call: EngineRequest
) -> None:
    # So many that some come alone, even where this process gets many of them at a time.
    stream = engine.generate_stream(generate_request(max_tokens=400), call)
    await anext(stream)
    engine.hold(call.request_id)
    early = engine.generate_stream(
        generate_request(max_tokens=1), EngineRequest(call.request_id + "-other")
    )
    assert [c async for c in early], "another stream is not held"
    await more_tokens(engine, 20)
    engine.release(call.request_id)
    assert len((await anext(stream)).token_ids) >= 10
    assert len([chunk async for chunk in stream]) > 10, "and then one by one"


async def test_the_end_is_not_held(engine: Engine, call: EngineRequest) -> None:
    stream = engine.generate_stream(generate_request(), call)
    seen = len((await anext(stream)).token_ids)
    engine.hold(call.request_id)
    rest = [chunk async for chunk in stream]
    assert seen + sum(len(c.token_ids) for c in rest) == TOKENS
    assert rest[-1].finish_reason == v1.FINISH_REASON_LENGTH
    assert len(rest) <= 2


async def test_a_conversation_may_be_held_too(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    question = make_chat("What is the gateway?")
    whole = await engine.chat(question, call)
    text = ""
    async for chunk in engine.chat_stream(question, call):
        text += chunk.delta.content
        engine.hold(call.request_id)
        await more_tokens(engine, 5)
        engine.release(call.request_id)
    assert text == whole.choices[0].message.content


async def test_holding_what_is_not_there_is_no_error(engine: Engine) -> None:
    engine.hold("nobody")
    engine.release("nobody")
