"""The engine's behaviour in virtual time: nothing here takes as long as it says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import EngineRequest
from autoglm.inference.settings import Rates
from autoglm.simulator import EchoEngine, EchoSettings, parse_fault, start

pytestmark = pytest.mark.looptime
Make = Callable[..., Any]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    engines: list[EchoEngine] = []

    async def started(**settings: Any) -> EchoEngine:
        engines.append(await start(EchoSettings(**settings)))
        return engines[-1]

    yield started
    for engine in engines:
        await engine.close()


def echo_request(text: str = "one two three", **params: Any) -> v1.GenerateRequest:
    sampling = v1.SamplingParams(**{"max_tokens": 100, **params})
    return v1.GenerateRequest(model="echo", text=text, sampling_params=sampling)


async def test_generate_echoes(make: Make) -> None:
    engine = await make()
    response = await engine.generate(echo_request(), EngineRequest("r"))
    assert response.completions[0].text == "one two three"
    assert response.usage == v1.Usage(prompt_tokens=5, completion_tokens=6)
    assert engine.load().kv_cache_usage == 0


async def test_output_tokens_are_counted_under_the_name_of_vllm(make: Make) -> None:
    engine = await make(model_name="counted")
    for _ in range(2):
        await engine.generate(echo_request(), EngineRequest("r"))
    labels = {"model_name": "counted", "engine": "0"}
    assert REGISTRY.get_sample_value("vllm:generation_tokens_total", labels) == 12


async def test_tokens_come_at_the_rate(make: Make) -> None:
    engine = await make(rates=Rates(token_rate=10, prefill_rate=10))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    times = [
        loop.time() - begun
        async for _ in engine.generate_stream(echo_request(), EngineRequest("r"))
    ]
    assert times == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


async def test_the_last_chunk_has_usage_and_timing(make: Make) -> None:
    engine = await make(rates=Rates(token_rate=10, prefill_rate=10), max_num_seqs=1)
    first = asyncio.create_task(engine.generate(echo_request("four"), EngineRequest("a")))
    await asyncio.sleep(0)
    second = [c async for c in engine.generate_stream(echo_request(), EngineRequest("b"))]
    await first
    assert [c.HasField("usage") for c in second] == [False] * 5 + [True]
    timing = second[-1].timing
    assert timing.queue_seconds == pytest.approx(0.4)
    assert timing.prefill_seconds == pytest.approx(0.5)
    assert timing.decode_seconds == pytest.approx(0.5)


async def test_who_waits_is_next_where_all_responses_end_with_their_first_token(make: Make) -> None:
    engine = await make(max_num_seqs=4)
    async with asyncio.timeout(1):
        response = await engine.generate(echo_request(n=10, max_tokens=1), EngineRequest("r"))
    assert len(response.completions) == 10


async def test_a_slow_reader_gets_merged_chunks(make: Make) -> None:
    engine = await make(rates=Rates(token_rate=10))
    stream = engine.generate_stream(echo_request(), EngineRequest("r"))
    await anext(stream)
    await asyncio.sleep(10)
    rest = [c async for c in stream]
    assert [len(c.token_ids) for c in rest] == [5]
    assert rest[0].finish_reason == v1.FINISH_REASON_STOP


async def test_prefix_reuse_shows_in_usage_and_time(make: Make) -> None:
    engine = await make(rates=Rates(prefill_rate=10))
    text = "word " * 100
    first = await engine.generate(echo_request(text), EngineRequest("a"))
    again = await engine.generate(echo_request(text), EngineRequest("b"))
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens > again.usage.prompt_tokens - 17
    assert again.timing.prefill_seconds < 2 < first.timing.prefill_seconds


async def test_closing_a_stream_frees_its_blocks(make: Make) -> None:
    engine = await make(rates=Rates(token_rate=1))
    stream = engine.generate_stream(echo_request(ignore_eos=True), EngineRequest("r"))
    await anext(stream)
    assert engine.load().running == 1
    await stream.aclose()
    load = engine.load()
    assert (load.running, load.kv_cache_usage, load.tokens_in_flight) == (0, 0.0, 0)


async def test_abort_ends_running_and_waiting_requests(make: Make) -> None:
    engine = await make(rates=Rates(token_rate=1), max_num_seqs=1)
    tasks = [
        asyncio.create_task(engine.generate(echo_request(), EngineRequest(i))) for i in ("a", "b")
    ]
    await asyncio.sleep(0.5)
    assert (engine.load().running, engine.load().waiting) == (1, 1)
    assert await engine.abort(["a", "b", "c"]) == ["a", "b"]
    for response in await asyncio.gather(*tasks):
        assert response.completions[0].finish_reason == v1.FINISH_REASON_ABORT
    assert engine.load().running == engine.load().waiting == 0


async def test_n_completions_come_back_by_index(make: Make) -> None:
    engine = await make()
    response = await engine.generate(
        echo_request("a b c d e f g h", n=3, temperature=1.0, seed=1), EngineRequest("r")
    )
    assert [c.index for c in response.completions] == [0, 1, 2]
    assert len({c.text for c in response.completions}) > 1
    assert response.usage.completion_tokens == 27


async def test_chat_responds_to_the_last_user_message(make: Make) -> None:
    engine = await make()
    messages = [
        v1.ChatMessage(role="system", content="be kind"),
        v1.ChatMessage(role="user", content="hello there"),
    ]
    request = v1.ChatRequest(model="echo", messages=messages)
    response = await engine.chat(request, EngineRequest("r"))
    assert response.choices[0].message == v1.ChatMessage(role="assistant", content="hello there")
    chunks = [c async for c in engine.chat_stream(request, EngineRequest("s"))]
    assert chunks[0].delta.role == "assistant"
    assert "".join(c.delta.content for c in chunks) == "hello there"
    assert chunks[-1].usage.completion_tokens == response.usage.completion_tokens


async def test_a_schema_gets_a_minimal_object(make: Make) -> None:
    schema = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'
    json_schema = v1.ResponseFormat.JsonSchema(schema=schema)
    request = echo_request()
    request.response_format.json_schema.CopyFrom(json_schema)
    response = await (await make()).generate(request, EngineRequest("r"))
    assert response.completions[0].text == '{"n": 0}'


async def test_a_prompt_beyond_the_budget_is_refused(make: Make) -> None:
    engine = await make(kv_blocks=2)
    with pytest.raises(errors.InvalidRequest, match="32 are the most"):
        await engine.generate(echo_request("word " * 50), EngineRequest("r"))


async def test_start_can_fail() -> None:
    with pytest.raises(errors.EngineDead):
        await start(EchoSettings(fault=parse_fault("start")))


async def test_requests_can_fail_after_some_tokens(make: Make) -> None:
    engine = await make(rates=Rates(token_rate=10), fault=parse_fault("after-tokens=3"))
    got = []
    with pytest.raises(errors.Internal):
        async for chunk in engine.generate_stream(echo_request(), EngineRequest("r")):
            got += chunk.token_ids
    assert len(got) == 3
    assert engine.load().running == 0


async def test_a_prompt_can_make_it_hang(make: Make) -> None:
    engine = await make()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await engine.generate(echo_request("<|echo hang=2|> one two"), EngineRequest("r"))
    assert engine.load().running == 0


async def test_death_ends_every_request(make: Make) -> None:
    engine = await make(rates=Rates(token_rate=1), fault=parse_fault("die-after-requests=1"))
    running = asyncio.create_task(engine.generate(echo_request(), EngineRequest("a")))
    await asyncio.sleep(1.5)
    with pytest.raises(errors.EngineDead):
        await engine.generate(echo_request(), EngineRequest("b"))
    with pytest.raises(errors.EngineDead):
        await running
    assert "after 1 requests" in await engine.wait_dead()


@pytest.mark.parametrize("text", ["", "nonsense", "hang=x", "hang=-1"])
def test_a_wrong_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="KIND"):
        parse_fault(text)


SHAPES = [
    {},
    {"n": 3, "temperature": 1.0, "seed": 7},
    {"stop": ["hree fo"], "include_stop_str_in_output": True},
    {"max_tokens": 4},
    {"logprobs": 2, "min_tokens": 9},
]


@pytest.mark.parametrize("params", SHAPES)
async def test_a_resumed_stream_says_the_rest_and_nothing_else(make: Make, params: Any) -> None:
    engine = await make(rates=Rates(token_rate=10))
    request = echo_request("one two three four ümläut", **params)
    whole = [c async for c in engine.generate_stream(request, EngineRequest("r"))]
    for cut in range(len(whole)):
        said: dict[int, v1.ResumedChoice] = {}
        for chunk in whole[:cut]:
            choice = said.setdefault(chunk.index, v1.ResumedChoice(index=chunk.index))
            choice.token_ids.extend(chunk.token_ids)
            choice.finished = bool(chunk.finish_reason)
        request.resume.CopyFrom(v1.Resume(choices=said.values()))
        rest = [c async for c in engine.generate_stream(request, EngineRequest("r"))]
        assert said_by(rest) == said_by(whole[cut:])
        assert rest[-1].usage.completion_tokens == whole[-1].usage.completion_tokens


def said_by(chunks: list[v1.GenerateChunk]) -> dict[int, list[Any]]:
    """By completion, whose chunks may come in any order among each other."""
    said: dict[int, list[Any]] = {}
    for c in chunks:
        piece = (c.text, list(c.token_ids), list(c.logprobs), c.finish_reason, c.stop_reason)
        said.setdefault(c.index, []).append(piece)
    return said


async def test_a_stream_that_cannot_be_repeated_is_not_resumed(make: Make) -> None:
    engine = await make()
    request = echo_request("one two three four five six", temperature=1.0)
    request.resume.choices.add(index=0, token_ids=[1, 2, 3])
    with pytest.raises(errors.ResumeImpossible, match="seed"):
        await anext(engine.generate_stream(request, EngineRequest("r")))
