"""A real gateway before echo pods that have too much to do, or clients that do not read."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import errors, rpc, status
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(120)
PLACES = 2
TOKENS_PER_SECOND = 40
ENDLESS = 4000
SLOW_READER_SECONDS = 1.0
# One HTTP client, that leaves the response unread until its standard input ends.
CLIENT = """
import socket, sys
host, port, body = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
with socket.create_connection((host, port)) as connection:
    head = ["POST /v1/completions HTTP/1.1", "host: x", f"content-length: {len(body)}", "", ""]
    connection.sendall("\\r\\n".join(head).encode() + body)
    print(connection.recv(1000)[:12].decode(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """One that takes two requests at once, at 40 tokens a second; one that floods its readers."""
    logs = tmp_path_factory.mktemp("overload")
    slow = ("--max-num-seqs", str(PLACES), "--echo-token-rate", str(TOKENS_PER_SECOND))
    flood = ("--max-model-len", "200000", "--echo-kv-blocks", "100000")
    pods = [
        processes.echo_pod(logs, "slow", *slow),
        processes.echo_pod(logs, "flood", "--model-name", "flood", *flood),
    ]
    with processes.running(*pods):
        yield pods


@pytest.fixture
def gateway(tmp_path: Path, pods: list[Process], plane: str) -> Iterator[Process]:
    bounds = ("--queue-requests", "2", "--pod-waiting-requests", "0")
    gateway = processes.gateway(
        tmp_path,
        pods,
        *bounds,
        *("--slow-reader-seconds", str(SLOW_READER_SECONDS), "--data-plane", plane),
    )
    with processes.running(gateway):
        processes.eventually(lambda: gateway.ready_endpoints() == 2)
        yield gateway


def gauge(gateway: Process, name: str, model: str = "echo") -> float:
    wanted = f'autoglm_gateway_{name}{{model="{model}"}} '
    lines = gateway.get("/metrics")[1].splitlines()
    return next((float(x.removeprefix(wanted)) for x in lines if x.startswith(wanted)), 0.0)


async def until(gateway: Process, name: str, value: float, model: str = "echo") -> None:
    def holds() -> bool:
        return gauge(gateway, name, model) == value

    await asyncio.to_thread(processes.eventually, holds, 60.0, f"{name} is {value}")


def sampling(tokens: int) -> v1.SamplingParams:
    return v1.SamplingParams(max_tokens=tokens, ignore_eos=True)


def request(tokens: int, model: str = "echo") -> v1.GenerateRequest:
    return v1.GenerateRequest(model=model, text="Hello", sampling_params=sampling(tokens))


def body(tokens: int, model: str = "echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "Hello", "max_tokens": tokens, "ignore_eos": True} | more


async def fill(
    gateway: Process, stub: InferenceStub, tokens: int, waiting_tokens: int
) -> tuple[list[Any], list[Any]]:
    """Every place taken for so many tokens, and the whole queue: the calls that run and wait."""
    running = [stub.Generate(request(tokens)) for _ in range(PLACES)]
    await until(gateway, "admitted_requests", PLACES)
    waiting = [stub.Generate(request(waiting_tokens)) for _ in range(2)]
    await until(gateway, "queue_requests", 2)
    return running, waiting


async def test_full_queue_says_when_to_come_back_on_both_wires(gateway: Process) -> None:
    async with rpc.channel(gateway.grpc_address) as channel, aiohttp.ClientSession() as session:
        stub = InferenceStub(channel)
        running, waiting = await fill(gateway, stub, ENDLESS, 4)
        url = f"http://{gateway.http_address}/v1/completions"
        async with session.post(url, json=body(4)) as answer:
            assert answer.status == 429 and int(answer.headers["retry-after"]) >= 1
            assert (await answer.json())["error"]["code"] == "queue_full"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(request(4))
        refused = status.from_grpc(caught.value)
        assert isinstance(refused, errors.QueueFull) and refused.retry_after
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for one in running:
            one.cancel()
        for one in waiting:
            assert (await one).usage.completion_tokens == 4


async def test_draining_gateway_serves_those_who_wait(gateway: Process) -> None:
    async with rpc.channel(gateway.grpc_address) as channel:
        tokens = 5 * TOKENS_PER_SECOND
        running, waiting = await fill(gateway, InferenceStub(channel), tokens, 4)
        gateway.signal(signal.SIGTERM)
        for one, expected in zip((*running, *waiting), (tokens, tokens, 4, 4), strict=True):
            assert (await one).usage.completion_tokens == expected
    assert await asyncio.to_thread(gateway.wait) == 0


async def test_those_whose_turn_does_not_come_in_the_grace_are_sent_elsewhere(
    tmp_path: Path, pods: list[Process], plane: str
) -> None:
    gateway = processes.gateway(
        tmp_path,
        pods,
        *("--pod-waiting-requests", "0", "--shutdown-grace-seconds", "3", "--data-plane", plane),
    )
    with processes.running(gateway):
        await asyncio.to_thread(processes.eventually, lambda: gateway.ready_endpoints() == 2)
        async with rpc.channel(gateway.grpc_address) as channel:
            running, waiting = await fill(gateway, InferenceStub(channel), ENDLESS, ENDLESS)
            gateway.signal(signal.SIGTERM)
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            await asyncio.gather(*running, return_exceptions=True)
    told = [status.from_grpc(end) for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert [type(error) for error in told] == [errors.ShuttingDown] * 2


def client(gateway: Process, asked: dict[str, Any]) -> subprocess.Popen[str]:
    host, port = gateway.http_address.split(":")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", CLIENT, host, port, json.dumps(asked)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


async def test_kill_9_of_a_client_frees_its_place(gateway: Process) -> None:
    with client(gateway, body(ENDLESS, stream=True)) as child:
        await until(gateway, "admitted_requests", 1)
        child.kill()
        child.wait()
    await until(gateway, "admitted_requests", 0)


async def test_kill_9_of_a_client_that_waits_frees_its_place_in_the_queue(gateway: Process) -> None:
    async with rpc.channel(gateway.grpc_address) as channel:
        stub = InferenceStub(channel)
        asked = [stub.Generate(request(ENDLESS)) for _ in range(PLACES)]
        await until(gateway, "admitted_requests", PLACES)
        with client(gateway, body(4)) as child:
            await until(gateway, "queue_requests", 1)
            child.kill()
            child.wait()
        await until(gateway, "queue_requests", 0)
        for one in asked:
            one.cancel()
    await until(gateway, "admitted_requests", 0)


def write_request(connection: socket.socket, asked: dict[str, Any]) -> None:
    text = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\n\r\n"
    connection.sendall(head.encode() + text)


@pytest.mark.plane("embedded", "Envoy's HTTP streams end by their deadline")
async def test_rest_client_that_stops_reading_loses_its_stream(gateway: Process) -> None:
    host, port = gateway.http_address.split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.settimeout(60)
        write_request(connection, body(100_000, "flood", stream=True))
        end = await asyncio.to_thread(connection.recv, 1)
        await until(gateway, "admitted_requests", 0, "flood")
        with suppress(ConnectionResetError):
            while received := await asyncio.to_thread(connection.recv, 1 << 20):
                end = (end + received)[-20:]
    # A body in chunks ends with an empty one; this one is not whole.
    assert not end.endswith(b"0\r\n\r\n")


@pytest.mark.plane("embedded", "Envoy has its own limit, tested in test_envoy.py")
async def test_grpc_client_that_stops_reading_loses_its_stream_and_hears_why(
    gateway: Process,
) -> None:
    small = (("grpc.http2.bdp_probe", 0),)
    async with grpc.aio.insecure_channel(gateway.grpc_address, small) as channel:
        stream = InferenceStub(channel).GenerateStream(request(100_000, "flood"))
        await stream.read()
        await until(gateway, "admitted_requests", 0, "flood")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                await stream.read()
        assert isinstance(status.from_grpc(caught.value), errors.Cancelled)
        assert "read nothing for 1 s" in (caught.value.details() or "")
