"""Abort, cancel, load, traces, and the OpenAI app on the same engine."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from autoglm import v1
from autoglm.inference.engine import Engine, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

MakeChat = Callable[..., v1.ChatRequest]
ENDLESS = {"max_tokens": 1000, "ignore_eos": True, "temperature": 1.0}
TRACE, PARENT = "ab" * 16, "cd" * 8
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest_asyncio.fixture(loop_scope="session")
async def http(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=engine.http_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        yield client


def endless(**sampling: int) -> v1.GenerateRequest:
    return v1.GenerateRequest(text="x", sampling_params=v1.SamplingParams(**ENDLESS | sampling))  # type: ignore[arg-type]  # fields by name


async def idle(engine: Engine) -> None:
    while engine.load().running + engine.load().waiting:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def gauge(http: httpx.AsyncClient, name: str) -> float:
    # Echo engines of this process are in the same registry.
    line = rf'^vllm:{name}{{.*model_name="tiny".*}} (\S+)$'
    found = re.search(line, (await http.get("/metrics")).text, re.M)
    assert found
    return float(found[1])


async def test_load_counts_a_request_until_it_ends(engine: Engine, call: EngineRequest) -> None:
    assert engine.load().running == 0
    stream = engine.generate_stream(endless(n=2), call)
    await anext(stream)
    load = engine.load()
    await engine.abort([call.request_id])

    assert load.running + load.waiting == 2
    assert load.tokens_in_flight >= 3
    assert (load.max_num_seqs, load.num_kv_blocks > 0, load.kv_block_size > 0) == (8, True, True)
    await idle(engine)
    assert engine.load().tokens_in_flight == 0


@pytest.mark.parametrize("kind", ["generate_stream", "chat_stream", "generate", "chat"])
async def test_a_client_that_goes_away_frees_its_blocks(
    engine: Engine, call: EngineRequest, make_chat: MakeChat, http: httpx.AsyncClient, kind: str
) -> None:
    """By vLLM's own metrics, which it brings up to date with the next request."""
    asked = (
        endless()
        if kind.startswith("generate")
        else make_chat("x", sampling_params=endless().sampling_params)
    )
    if kind.endswith("stream"):
        stream = getattr(engine, kind)(asked, call)
        await anext(stream)
        # vLLM writes its metrics some time after it has handed out the tokens.
        while not await gauge(http, "num_requests_running"):
            await anext(stream)
        assert await gauge(http, "kv_cache_usage_perc") > 0
        await stream.aclose()
    else:
        task = asyncio.ensure_future(getattr(engine, kind)(asked, call))
        while not engine.load().running:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await idle(engine)

    await engine.generate(v1.GenerateRequest(text="y"), call)

    assert await gauge(http, "num_requests_running") == 0
    assert await gauge(http, "kv_cache_usage_perc") == 0


@pytest.mark.parametrize("n", [1, 2])
async def test_generate_is_aborted_by_its_id(engine: Engine, call: EngineRequest, n: int) -> None:
    stream = engine.generate_stream(endless(n=n), call)
    await anext(stream)

    assert await engine.abort(["unknown", call.request_id]) == [call.request_id]

    *_, last = [chunk async for chunk in stream]
    assert last.finish_reason == v1.FINISH_REASON_ABORT
    assert last.HasField("usage")
    assert await engine.abort([call.request_id]) == []


async def test_chat_is_aborted_by_its_id(
    engine: Engine, call: EngineRequest, make_chat: MakeChat
) -> None:
    stream = engine.chat_stream(make_chat("x", sampling_params=endless().sampling_params), call)
    await anext(stream)

    assert await engine.abort([call.request_id]) == [call.request_id]

    *_, last = [chunk async for chunk in stream]
    assert last.finish_reason == v1.FINISH_REASON_ABORT


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_rest_is_aborted_by_its_id(
    engine: Engine, call: EngineRequest, http: httpx.AsyncClient, path: str
) -> None:
    body = ENDLESS | {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    headers = {"x-request-id": call.request_id}
    task = asyncio.create_task(http.post(f"/v1/{path}", json=body, headers=headers))
    while not engine.load().running:  # noqa: ASYNC110
        await asyncio.sleep(0)

    assert await engine.abort([call.request_id]) == [call.request_id]

    response = await task
    assert response.headers["x-request-id"] == call.request_id
    assert response.json()["choices"][0]["finish_reason"] == "abort"


async def test_engine_spans_join_the_caller_s_trace(
    engine: Engine, make_chat: MakeChat, http: httpx.AsyncClient, spans: InMemorySpanExporter
) -> None:
    headers = {"traceparent": TRACEPARENT}
    short = v1.SamplingParams(max_tokens=2)
    await engine.generate(
        v1.GenerateRequest(text="x", sampling_params=short), EngineRequest("by-generate", headers)
    )
    await engine.chat(make_chat("x", sampling_params=short), EngineRequest("by-chat", headers))
    body = {"prompt": "x", "max_tokens": 2}
    await http.post("/v1/completions", json=body, headers=headers | {"x-request-id": "by-rest"})

    found = [s for s in spans.get_finished_spans() if s.name == "llm_request"]
    assert [s.attributes and s.attributes["gen_ai.request.id"] for s in found] == [
        "by-generate",
        "chatcmpl-by-chat",
        "cmpl-by-rest-0",
    ]
    for span in found:
        assert span.parent is not None
        assert span.context is not None
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)


async def test_the_model_is_described(engine: Engine, http: httpx.AsyncClient) -> None:
    (model,) = engine.models()

    assert (model.name, list(model.aliases), model.max_model_len) == ("tiny", ["tiny-glm"], 1024)
    assert list(model.tasks) == ["generate", "chat", "classify", "tokenize"]
    assert (model.dtype, model.engine) == ("bfloat16", "vllm")
    assert 4 < model.max_token_bytes < 100
    assert model.created > 1_700_000_000
    listed = (await http.get("/v1/models")).json()["data"]
    assert [card["id"] for card in listed] == ["tiny", "tiny-glm"]


async def test_tokens_of_text_and_conversation(engine: Engine, call: EngineRequest) -> None:
    text = v1.TokenizeRequest(text="Open-AutoGLM", return_tokens=True)
    turn = v1.ChatMessage(role="user", content="Open-AutoGLM")
    chat = v1.TokenizeRequest(chat=v1.ChatMessages(messages=[turn]), return_tokens=True)

    plain, templated = [await engine.tokenize(asked, call) for asked in (text, chat)]

    assert "".join(plain.tokens) == "Open-AutoGLM"
    assert templated.tokens[0] == "<|user|>"
    assert templated.max_model_len == 1024
    assert set(plain.token_ids) < set(templated.token_ids)


@pytest.mark.parametrize("kind", ["generate_stream", "chat_stream"])
@pytest.mark.parametrize("n", [1, 2])
async def test_a_request_runs_until_its_last_token_whatever_reads_it(
    engine: Engine, call: EngineRequest, make_chat: MakeChat, kind: str, n: int
) -> None:
    # More than are generated while this process waits for its turn.
    sampling = v1.SamplingParams(n=n, max_tokens=300, ignore_eos=True)
    asked = endless() if kind.startswith("generate") else make_chat("x")
    asked.sampling_params.CopyFrom(sampling)
    stream = getattr(engine, kind)(asked, call)
    assert not engine.is_running(call.request_id)

    await anext(stream)
    assert engine.is_running(call.request_id)
    await idle(engine)

    assert not engine.is_running(call.request_id)
    assert [chunk async for chunk in stream]
