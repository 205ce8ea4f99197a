"""What both clients do, against one scripted server; the table runs each property twice."""

import asyncio
import itertools
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from autoglm import v1
from autoglm.client import AsyncClient, Client, RetryPolicy, call
from autoglm.common import errors
from autoglm.testing.fake_server import FakeServer

USER = [{"role": "user", "content": "Hi"}]
AT_ONCE = RetryPolicy(first_wait=0)
Send = Callable[[FakeServer, str, tuple[Any, ...], dict[str, Any]], Any]


def send_sync(server: FakeServer, method: str, args: Any, options: Any) -> Any:
    with Client(server.address, model="fake", retries=AT_ONCE) as client:
        response = getattr(client, method)(*args, **options)
        return list(response) if isinstance(response, Iterator) else response


def send_async(server: FakeServer, method: str, args: Any, options: Any) -> Any:
    async def send() -> Any:
        async with AsyncClient(server.address, model="fake", retries=AT_ONCE) as client:
            response = getattr(client, method)(*args, **options)
            if isinstance(response, AsyncIterator):
                return [chunk async for chunk in response]
            return await response

    return asyncio.run(send())


@pytest.fixture(params=[send_sync, send_async], ids=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    sender: Send = request.param
    return sender


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.mark.parametrize(("given", "sent"), [("k1", "Bearer k1"), (None, "Bearer k2"), ("", None)])
def test_key_is_the_given_one_or_the_environments(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, given: str | None, sent: str | None
) -> None:
    monkeypatch.setenv("AUTOGLM_API_KEY", "k2")
    with Client(server.address, api_key=given) as client:
        client.list_models()

    async def send() -> None:
        async with AsyncClient(server.address, api_key=given) as client:
            await client.list_models()
        assert "k1" not in repr(client._target)

    asyncio.run(send())
    assert [s.metadata.get("authorization") for s in server.received] == [sent, sent]


def test_every_method_reaches_its_rpc(send: Send, server: FakeServer) -> None:
    text = "".join(c.text for c in send(server, "generate_stream", ("Hi",), {}))
    streamed = "".join(c.delta.content for c in send(server, "chat_stream", (USER,), {}))
    assert text == streamed == server.text
    assert send(server, "generate", ("Hi",), {}).completions[0].text == server.text
    assert send(server, "chat", (USER,), {}).choices[0].message.content == server.text
    assert len(send(server, "embed", (["a", "b"],), {}).embeddings) == 2
    assert send(server, "predict", ("x",), {"labels": ["a", "b"]}).output == "a"
    assert list(send(server, "tokenize", ("A",), {}).token_ids) == [65]
    assert [m.name for m in send(server, "list_models", (), {})] == ["fake"]
    assert send(server, "get_model", ("fake",), {}).max_model_len == 2048
    assert {s.method for s in server.received} == {
        *("GenerateStream", "ChatStream", "Generate", "Chat", "Embed"),
        *("Predict", "Tokenize", "ListModels", "GetModel"),
    }


def test_errors_are_ours_with_reason_and_request_id(send: Send, server: FakeServer) -> None:
    with pytest.raises(errors.ModelNotFound, match="there is 'fake'") as caught:
        send(server, "get_model", ("other",), {"request_id": "r-1"})
    assert caught.value.request_id == "r-1"


@pytest.mark.parametrize(
    ("method", "args"), [("chat", (USER,)), ("chat_stream", (USER,)), ("generate_stream", ("Hi",))]
)
def test_not_now_is_tried_again_under_one_request_id(
    send: Send, server: FakeServer, method: str, args: Any
) -> None:
    server.failures = [errors.NoReadyEndpoint("none"), errors.QueueFull("full", retry_after=0)]
    assert send(server, method, args, {})
    assert len(server.received) == 3
    assert len({s.metadata["x-request-id"] for s in server.received}) == 1


def test_retries_end_after_the_attempts_allowed(send: Send, server: FakeServer) -> None:
    server.failures = [errors.NoReadyEndpoint("none") for _ in range(9)]
    with pytest.raises(errors.NoReadyEndpoint):
        send(server, "chat", (USER,), {})
    assert len(server.received) == AT_ONCE.attempts


def test_no_retry_would_end_after_the_deadline(send: Send, server: FakeServer) -> None:
    server.failures = [errors.QueueFull("full", retry_after=30)]
    with pytest.raises(errors.QueueFull):
        send(server, "chat", (USER,), {"timeout": 5})
    assert len(server.received) == 1


def test_a_wrong_request_is_not_tried_again(send: Send, server: FakeServer) -> None:
    server.failures = [errors.InvalidRequest("bad", field="messages")]
    with pytest.raises(errors.InvalidRequest) as caught:
        send(server, "chat", (USER,), {})
    assert (caught.value.field, len(server.received)) == ("messages", 1)


def test_nothing_is_tried_again_after_the_first_chunk(send: Send, server: FakeServer) -> None:
    server.break_with = errors.NoReadyEndpoint("gone")
    with pytest.raises(errors.NoReadyEndpoint):
        send(server, "generate_stream", ("Hi",), {})
    assert len(server.received) == 1


def test_the_timeout_is_the_deadline(send: Send, server: FakeServer) -> None:
    send(server, "chat", (USER,), {"timeout": 7})
    send(server, "chat", (USER,), {"timeout": None})
    limited, free = (s.seconds_left for s in server.received)
    assert limited == pytest.approx(7, abs=3)
    assert free == math.inf


def test_a_deadline_ends_a_stream(send: Send, server: FakeServer) -> None:
    server.endless = True
    with pytest.raises(errors.DeadlineExceeded):
        send(server, "generate_stream", ("Hi",), {"timeout": 0.2})


def test_the_current_trace_is_passed_on(send: Send, server: FakeServer) -> None:
    parent = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(parent)):
        send(server, "chat", (USER,), {})
    send(server, "chat", (USER,), {})
    inside, outside = (s.metadata.get("traceparent") for s in server.received)
    assert inside == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert outside is None


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The global provider can be set once a process; the client's tracer is replaced instead.
    monkeypatch.setattr(call, "_tracer", provider.get_tracer("test"))
    return exporter


def test_a_call_is_one_client_span_that_servers_join(
    send: Send, server: FakeServer, spans: InMemorySpanExporter
) -> None:
    server.failures = [errors.NoReadyEndpoint("none")]
    send(server, "chat_stream", (USER,), {"request_id": "r-1"})
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("autoglm.v1.Inference/ChatStream", trace.SpanKind.CLIENT)
    assert span.attributes is not None and span.context is not None
    assert dict(span.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "autoglm.v1.Inference/ChatStream",
        "server.address": "127.0.0.1",
        "server.port": int(server.address.partition(":")[2]),
        "gen_ai.request.model": "fake",
        "autoglm.request.id": "r-1",
        "rpc.status_code": "OK",
    }
    assert [e.name for e in span.events] == ["retry"]
    sent = {s.metadata["traceparent"].split("-")[2] for s in server.received}
    assert sent == {trace.format_span_id(span.context.span_id)}


def test_a_failed_call_marks_its_span(
    send: Send, server: FakeServer, spans: InMemorySpanExporter
) -> None:
    server.failures = [errors.InvalidRequest("bad")]
    with pytest.raises(errors.InvalidRequest):
        send(server, "chat", (USER,), {})
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "INVALID_REQUEST"
    assert span.status.status_code is trace.StatusCode.ERROR


def test_a_wrong_argument_never_leaves_the_process(send: Send, server: FakeServer) -> None:
    with pytest.raises(errors.InvalidRequest):
        send(server, "generate", ("Hi",), {"max_tokens": -1})
    assert server.received == []


def test_missing_server_is_no_ready_endpoint(send: Send) -> None:
    with pytest.raises(errors.NoReadyEndpoint):
        send(FakeServer(address="127.0.0.1:1"), "list_models", (), {})


def test_closing_a_stream_cancels_the_call(server: FakeServer) -> None:
    server.endless = True
    with Client(server.address) as client:
        stream = client.chat_stream(USER)
        assert len(list(itertools.islice(stream, 3))) == 3
        stream.close()
        assert server.cancelled.wait(10)


async def test_closing_an_async_stream_cancels_the_call(server: FakeServer) -> None:
    server.endless = True
    async with AsyncClient(server.address) as client:
        stream = client.generate_stream("Hi")
        assert (await anext(stream)).text == "Hello"
        await stream.aclose()
        assert await asyncio.to_thread(server.cancelled.wait, 10)


async def test_cancelling_a_task_cancels_the_call(server: FakeServer) -> None:
    server.endless = True
    first = asyncio.Event()

    async def read(client: AsyncClient) -> None:
        async for _ in client.generate_stream("Hi"):
            first.set()

    async with AsyncClient(server.address) as client:
        task = asyncio.create_task(read(client))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.cancelled.wait, 10)


def test_one_client_serves_many_threads(server: FakeServer) -> None:
    responses: list[v1.ChatResponse] = []
    with Client(server.address) as client:
        threads = [
            threading.Thread(target=lambda: responses.append(client.chat(USER))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(responses) == 8
