"""Completions of one prompt, by vLLM."""

import re

import pytest

from autoglm import v1
from autoglm.inference.engine import Engine, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

PROMPT = "What is the license?"
ANSWER = " Open-AutoGLM is published under the Apache License 2.0."


def request(**sampling: object) -> v1.GenerateRequest:
    params = v1.SamplingParams(**{"temperature": 0, "max_tokens": 64} | sampling)  # type: ignore[arg-type]  # fields by name
    return v1.GenerateRequest(model="tiny", text=PROMPT, sampling_params=params)


async def collect(
    engine: Engine, asked: v1.GenerateRequest, call: EngineRequest
) -> list[v1.GenerateChunk]:
    return [chunk async for chunk in engine.generate_stream(asked, call)]


async def test_greedy_decoding_responds_word_for_word(engine: Engine, call: EngineRequest) -> None:
    answer = await engine.generate(request(), call)

    (completion,) = answer.completions
    assert (answer.id, answer.model) == (call.request_id, "tiny")
    assert completion.text == ANSWER
    assert completion.finish_reason == v1.FINISH_REASON_STOP
    assert answer.usage.completion_tokens == len(completion.token_ids)
    assert answer.timing.prefill_seconds > 0
    assert answer.timing.decode_seconds > 0


async def test_a_stream_adds_up_to_the_response(engine: Engine, call: EngineRequest) -> None:
    whole = await engine.generate(request(), call)
    chunks = await collect(engine, request(), call)

    assert "".join(c.text for c in chunks) == whole.completions[0].text
    ids = [i for c in chunks for i in c.token_ids]
    assert ids == list(whole.completions[0].token_ids)
    assert chunks[-1].finish_reason == v1.FINISH_REASON_STOP
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_only_the_last_chunk_of_all_carries_usage(
    engine: Engine, call: EngineRequest
) -> None:
    chunks = await collect(engine, request(n=3, temperature=1, seed=1, ignore_eos=True), call)

    assert [c.HasField("usage") for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [c.HasField("timing") for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {c.index for c in chunks} == {0, 1, 2}
    assert sum(c.finish_reason == v1.FINISH_REASON_LENGTH for c in chunks) == 3
    assert chunks[-1].usage.completion_tokens == 3 * 64


async def test_several_completions_come_by_index(engine: Engine, call: EngineRequest) -> None:
    answer = await engine.generate(request(n=3, temperature=1, seed=1), call)

    assert [c.index for c in answer.completions] == [0, 1, 2]


async def test_token_ids_are_completed_as_text_is(engine: Engine, call: EngineRequest) -> None:
    tokens = await engine.tokenize(v1.TokenizeRequest(model="tiny", text=PROMPT), call)
    asked = request()
    asked.token_ids.ids.extend(tokens.token_ids)

    answer = await engine.generate(asked, call)

    assert answer.completions[0].text == ANSWER
    assert answer.usage.prompt_tokens == len(tokens.token_ids)


async def test_sixteen_tokens_where_nothing_is_said(engine: Engine, call: EngineRequest) -> None:
    asked = v1.GenerateRequest(text=PROMPT, sampling_params=v1.SamplingParams(ignore_eos=True))

    answer = await engine.generate(asked, call)

    assert len(answer.completions[0].token_ids) == 16
    assert answer.completions[0].finish_reason == v1.FINISH_REASON_LENGTH


async def test_a_seed_repeats_itself(engine: Engine, call: EngineRequest) -> None:
    asked = request(temperature=2, seed=11, ignore_eos=True)

    first, second = [await engine.generate(asked, call) for _ in range(2)]

    assert first.completions == second.completions


async def test_a_stop_string_ends_and_is_named(engine: Engine, call: EngineRequest) -> None:
    answer = await engine.generate(request(stop=["under", "Apache"]), call)

    (completion,) = answer.completions
    assert completion.text == " Open-AutoGLM is published "
    assert completion.stop_reason == "under"
    assert completion.finish_reason == v1.FINISH_REASON_STOP


async def test_logprobs_of_tokens_and_alternatives(engine: Engine, call: EngineRequest) -> None:
    asked = request(logprobs=2, max_tokens=4)

    (completion,) = (await engine.generate(asked, call)).completions
    streamed = [entry for c in await collect(engine, asked, call) for entry in c.logprobs]

    assert [entry.token_id for entry in completion.logprobs] == list(completion.token_ids)
    assert [entry.token_id for entry in streamed] == list(completion.token_ids)
    for entry in completion.logprobs:
        assert [t.rank for t in entry.top_logprobs] == [1, 2]
        assert entry.top_logprobs[0].token_id == entry.token_id
        assert entry.logprob == entry.top_logprobs[0].logprob


async def test_prompt_logprobs_cover_all_but_the_first(engine: Engine, call: EngineRequest) -> None:
    answer = await engine.generate(request(prompt_logprobs=1, max_tokens=1), call)

    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens - 1
    assert all(len(entry.top_logprobs) == 1 for entry in answer.prompt_logprobs)


async def test_truncation_keeps_the_end_of_the_prompt(engine: Engine, call: EngineRequest) -> None:
    asked = request(truncate_prompt_tokens=5)
    asked.text = f"Nothing of this counts. {PROMPT}"

    assert (await engine.generate(asked, call)).usage.prompt_tokens == 5


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        (v1.ResponseFormat(choice=v1.ResponseFormat.Choice(values=["red", "blue"])), "red|blue"),
        (v1.ResponseFormat(regex="[a-c]{3}[0-9]"), "[a-c]{3}[0-9]"),
        (v1.ResponseFormat(grammar='root ::= "yes" | "no"'), "yes|no"),
        (
            v1.ResponseFormat(
                json_schema=v1.ResponseFormat.JsonSchema(schema='{"enum": ["a", "b"]}')
            ),
            '"[ab]"',
        ),
    ],
)
async def test_structured_output(
    engine: Engine, call: EngineRequest, wanted: v1.ResponseFormat, pattern: str
) -> None:
    asked = request()
    asked.response_format.CopyFrom(wanted)

    (completion,) = (await engine.generate(asked, call)).completions

    assert re.fullmatch(pattern, completion.text)


async def test_a_shared_prefix_is_cached(engine: Engine, call: EngineRequest) -> None:
    asked = v1.GenerateRequest(token_ids=v1.TokenIds(ids=[9] * 300))

    first, second = [(await engine.generate(asked, call)).usage for _ in range(2)]

    assert (first.cached_tokens, second.cached_tokens > 0) == (0, True)
