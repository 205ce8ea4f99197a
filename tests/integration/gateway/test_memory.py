"""What a gateway does with bodies for which it has no room, or whose senders it does not know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from aiohttp import web
from tests.support import processes
from tests.support.processes import Process
from tests.support.rest_stack import rest_stack
from tests.support.tcp_proxy import TcpProxy

from autoglm import v1
from autoglm.client.requests import hint_metadata
from autoglm.common import errors, rpc, status
from autoglm.gateway.request.memory_budget import REQUEST_BYTES, Memory
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import GatewayRequest
from autoglm.v1.inference_pb2_grpc import InferenceStub

PATH = "/v1/completions"
LIMIT = 64 * 1024
BODY = json.dumps({"model": "m", "prompt": "Hello"}).encode()


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"length": len(await request.read())})


async def send_head(url: str, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of which only the head has been sent."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([f"POST {PATH} HTTP/1.1", "host: x", *headers, "", ""]).encode())
    return reader, writer


async def head(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(30):
        return (await reader.readuntil(b"\r\n\r\n")).decode().lower()


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(processes.eventually, condition)


def small() -> Memory:
    """Room for two tenants' requests of 64 KiB each."""
    return Memory(2 * (LIMIT + REQUEST_BYTES), retry_after=lambda: 7.0)


async def test_body_without_room_is_refused_before_it_is_sent() -> None:
    async with rest_stack(echo, memory=small()) as stack:
        reader, writer = await send_head(stack.url, f"content-length: {LIMIT + 1}")
        answer = await head(reader)
        assert answer.startswith("http/1.1 429") and "retry-after: 7" in answer
        writer.close()


async def test_body_in_chunks_is_refused_where_the_room_ends() -> None:
    memory = small()
    async with rest_stack(echo, memory=memory) as stack:
        reader, writer = await send_head(stack.url, "transfer-encoding: chunked")
        for _ in range(5):
            writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        assert (await head(reader)).startswith("http/1.1 429")
        writer.close()
        async with stack.client.post(PATH, data=BODY) as answer:
            assert answer.status == 200
    assert (memory.held, memory.holds) == (0, 0)


async def test_client_that_leaves_while_it_sends_gives_everything_back() -> None:
    memory = small()
    async with rest_stack(echo, memory=memory) as stack:
        _, writer = await send_head(stack.url, f"content-length: {LIMIT}")
        writer.write(bytes(1000))
        await until(lambda: memory.held == REQUEST_BYTES + 1000)
        writer.close()
        await until(lambda: memory.held == 0)


async def test_announced_body_that_does_not_come_takes_no_room() -> None:
    memory = small()
    async with rest_stack(echo, memory=memory) as stack:
        _, writer = await send_head(stack.url, f"content-length: {LIMIT}")
        await until(lambda: memory.held == REQUEST_BYTES)
        writer.close()


async def test_client_that_waits_for_our_word_gets_it_when_we_read() -> None:
    async with rest_stack(echo) as stack:
        waits = (f"content-length: {len(BODY)}", "expect: 100-continue")
        reader, writer = await send_head(stack.url, *waits)
        assert (await head(reader)).startswith("http/1.1 100")
        writer.write(BODY)
        assert (await head(reader)).startswith("http/1.1 200")
        writer.close()


async def test_stranger_is_refused_by_the_head_alone() -> None:
    async def identify(_: GatewayRequest) -> Principal:
        raise errors.Unauthenticated("who?")

    async with rest_stack(echo, identify=identify) as stack:
        for waits in ((), ("expect: 100-continue",)):
            reader, writer = await send_head(stack.url, "content-length: 1000000", *waits)
            assert (await head(reader)).startswith("http/1.1 401")
            writer.close()


async def test_connection_too_many_is_sent_away_with_retry_after() -> None:
    async with rest_stack(echo, max_connections=1) as stack:
        # The client's is idle, and makes room; ours is not.
        async with stack.client.post(PATH, data=BODY) as answer:
            assert answer.status == 200
        reader, writer = await send_head(stack.url, "content-length: 10")
        refused, other = await send_head(stack.url, "content-length: 10")
        answer_head = await head(refused)
        assert answer_head.startswith("http/1.1 429") and "retry-after: 1" in answer_head
        assert await refused.read() and refused.at_eof()
        other.close()
        writer.close()
        assert await reader.read() == b""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Anonymous callers may hold what four small requests take, on three connections."""
    logs = tmp_path_factory.mktemp("memory")
    pod = processes.echo_pod(logs, "echo", "--echo-token-rate", "20")
    bounds = (
        *("--request-memory-bytes", str(2 * 4 * (REQUEST_BYTES + 2000))),
        *("--max-body-bytes", str(2 * REQUEST_BYTES), "--max-connections", "3"),
    )
    with processes.running(pod):
        made = processes.gateway(logs, [pod], *bounds)
        with processes.running(made):
            yield made


@pytest.fixture
async def channel(gateway: Process) -> AsyncIterator[grpc.aio.Channel]:
    async with rpc.channel(gateway.grpc_address) as channel:
        yield channel


def request(text: str = "Hello", tokens: int = 1) -> v1.GenerateRequest:
    sampling = v1.SamplingParams(max_tokens=tokens, ignore_eos=True)
    return v1.GenerateRequest(model="echo", text=text, sampling_params=sampling)


def held(gateway: Process) -> float:
    name = "autoglm_gateway_request_memory_bytes "
    lines = gateway.get("/metrics")[1].splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def test_grpc_request_without_room_gets_a_retry_after(
    gateway: Process, channel: grpc.aio.Channel
) -> None:
    stub = InferenceStub(channel)
    streams = [stub.GenerateStream(request(tokens=1000)) for _ in range(4)]
    for stream in streams:
        await stream.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(request("x" * 50_000))
    refused = status.from_grpc(caught.value)
    assert isinstance(refused, errors.QueueFull) and refused.retry_after == 1.0
    for stream in streams:
        stream.cancel()
    await until(lambda: held(gateway) == 0)
    assert (await stub.Generate(request())).usage.completion_tokens == 1


async def test_call_without_a_message_is_an_invalid_request(channel: grpc.aio.Channel) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield

    path = "/autoglm.v1.Inference/Generate"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        call: Any = channel.stream_unary(path)
        await call(nothing())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_grpc_connection_too_many_is_closed(gateway: Process) -> None:
    alone = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(gateway.grpc_address, alone) for _ in range(4)]
    ends: list[object] = []
    for channel in channels:
        try:
            ends.append((await InferenceStub(channel).Generate(request(), timeout=30)).usage)
        except grpc.aio.AioRpcError as error:
            ends.append(error.code())
    # Connections of other tests may still be closing.
    assert (type(ends[0]), ends[-1]) == (v1.Usage, grpc.StatusCode.UNAVAILABLE)
    for channel in channels:
        await channel.close()


def test_memory_too_small_for_one_body_is_a_wrong_setting(tmp_path: Path) -> None:
    gateway = processes.gateway(tmp_path, [], "--request-memory-bytes", "1000")
    gateway.start()
    assert gateway.wait(30) == 64
    assert "request_memory_bytes is 1000" in gateway.log_tail()


MB = 1024 * 1024
PROCESS_BYTES = 640 * MB
GENERATE = "/autoglm.v1.Inference/Generate"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


@pytest.fixture
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    """A gateway that may take 640 MiB, with one pod."""
    pod = processes.echo_pod(tmp_path, "echo")
    plane = ("--data-plane", getattr(request, "param", "embedded"))
    bounds = (*plane, "--memory-bytes", str(PROCESS_BYTES), "--max-body-bytes", str(32 * MB))
    with processes.running(pod):
        made = processes.gateway(tmp_path, [pod], *bounds)
        with processes.running(made):
            yield made


@asynccontextmanager
async def half_sent(
    gateway: Process, path: str, metadata: Sequence[tuple[str, bytes]] = ()
) -> AsyncIterator[set[asyncio.Task[bytes]]]:
    """Calls of 60 clients; 20 MiB of each message arrive, and the last 4 never do."""
    own = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
    message = bytes(24 * MB)
    with TcpProxy(gateway.grpc_address, most_bytes=20 * MB) as proxy:
        channels = [grpc.aio.insecure_channel(proxy.address, own) for _ in range(60)]

        async def send(channel: Any) -> bytes:
            answer: bytes = await channel.unary_unary(path)(message, metadata=metadata)
            return answer

        calls = {asyncio.create_task(send(channel)) for channel in channels}
        yield calls
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def serve_until_most_end(gateway: Process, calls: set[asyncio.Task[bytes]]) -> list[Any]:
    """Errors of those; clients with whole messages are served all the time."""
    async with rpc.channel(gateway.grpc_address) as channel:
        stub = InferenceStub(channel)
        while sum(call.done() for call in calls) < 36:
            assert (await stub.Generate(request(), timeout=60)).usage.completion_tokens == 1
            await asyncio.sleep(0.02)
    return [call.exception() for call in calls if call.done()]


@asynccontextmanager
async def watched(pid: int) -> AsyncIterator[list[int]]:
    """What the process takes, polled."""
    seen: list[int] = []
    process = psutil.Process(pid)

    async def look() -> None:
        while True:
            seen.append(process.memory_info().rss)
            await asyncio.sleep(0.02)

    looks = asyncio.create_task(look())
    yield seen
    looks.cancel()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", [GENERATE, STREAM_INFER])
async def test_half_sent_messages_take_no_more_memory_than_there_is(
    narrow: Process, path: str
) -> None:
    async with watched(narrow.pid) as seen, half_sent(narrow, path) as calls:
        ends = await serve_until_most_end(narrow, calls)
    assert max(seen) < PROCESS_BYTES
    assert all(isinstance(status.from_grpc(end), errors.QueueFull) for end in ends)
    assert "memory is short" in narrow.log.read_text()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("narrow", ["envoy"], indirect=True)
@pytest.mark.parametrize("is_hinted", [False, True], ids=["", "hinted"])
async def test_half_sent_messages_take_no_more_memory_than_envoy_has(
    narrow: Process, is_hinted: bool
) -> None:
    """Hinted ones are forwarded to the pod as they come."""
    metadata = tuple(hint_metadata(request()).items()) if is_hinted else ()
    (envoy,) = psutil.Process(narrow.pid).children()
    async with watched(envoy.pid) as seen, half_sent(narrow, GENERATE, metadata) as calls:
        ends = await serve_until_most_end(narrow, calls)
    assert {end.code() for end in ends} <= {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    # The program itself has some 60 MB.
    assert max(seen) < PROCESS_BYTES / 2 + 100 * MB


async def test_stream_of_requests_of_a_stranger_is_not_read(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    pod = processes.echo_pod(tmp_path, "echo")
    with processes.running(pod):
        gateway = processes.gateway(tmp_path, [pod], "--api-keys-file", str(keys))
        with processes.running(gateway):
            async with grpc.aio.insecure_channel(gateway.grpc_address) as channel:
                stream: Any = channel.stream_stream(STREAM_INFER)()
                # Not one message is sent.
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await asyncio.wait_for(stream.read(), 30)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
