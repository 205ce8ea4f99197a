"""A pod as a process: signals, exit codes, and its message when it cannot continue."""

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from autoglm import v1
from autoglm.common import rpc
from autoglm.common.process import ExitCode
from autoglm.v1 import inference_pb2_grpc, worker_pb2_grpc

ANYWHERE = [f"--{name}-address=127.0.0.1:0" for name in ("grpc", "http", "metrics")]
pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True)
class Pod:
    process: Process
    message_file: Path

    async def line(self, message: str) -> dict[str, Any]:
        """The fields of the first log line with this message."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if line.startswith(b"{") and (entry := json.loads(line))["message"] == message:
                return dict(entry)
        raise AssertionError(f"the pod ended without saying {message!r}")

    def signal(self) -> None:
        self.process.send_signal(signal.SIGTERM)


Run = Callable[..., Awaitable[Pod]]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    pods: list[Pod] = []

    async def started(*flags: str, engine: str = "echo") -> Pod:
        message_file = tmp_path / "termination"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "autoglm", "inference", f"--engine={engine}", *ANYWHERE),
            *(f"--termination-message-file={message_file}", *flags),
            stderr=PIPE,
        )
        pods.append(Pod(process, message_file))
        return pods[-1]

    yield started
    for pod in pods:
        if pod.process.returncode is None:
            pod.process.kill()
        await pod.process.communicate()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[int], grpc.aio.Channel]]:
    channels: list[grpc.aio.Channel] = []

    def connected(port: int) -> grpc.aio.Channel:
        channels.append(rpc.channel(f"127.0.0.1:{port}"))
        return channels[-1]

    yield connected
    for channel in channels:
        await channel.close()


def stream(channel: grpc.aio.Channel, tokens: int) -> Any:
    params = v1.SamplingParams(max_tokens=tokens, ignore_eos=True)
    request = v1.GenerateRequest(model="echo", text="go on", sampling_params=params)
    return inference_pb2_grpc.InferenceStub(channel).GenerateStream(request)


async def test_a_signal_lets_streams_finish_and_the_pod_exits_0(run: Run, connect: Any) -> None:
    pod = await run("--echo-token-rate=40", "--drain-delay-seconds=3")
    channel = connect((await pod.line("ready"))["grpc"])
    running = stream(channel, 60)
    await running.read()
    watch = worker_pb2_grpc.WorkerStub(channel).WatchLoad(v1.WatchLoadRequest())
    await watch.read()
    pod.signal()
    while not (await watch.read()).draining:
        pass
    # Who has not noticed yet is still served.
    late = [c async for c in stream(channel, 1)]
    assert late[-1].usage.completion_tokens == 1
    while not (chunk := await running.read()).finish_reason:
        pass
    assert chunk.usage.completion_tokens == 60
    assert await pod.process.wait() == 0


async def test_a_second_signal_ends_the_pod_at_once(run: Run, connect: Any) -> None:
    pod = await run("--echo-fail=hang")
    channel = connect((await pod.line("ready"))["grpc"])
    call = stream(channel, 10)
    watch = worker_pb2_grpc.WorkerStub(channel).WatchLoad(v1.WatchLoadRequest())
    while not (await watch.read()).running:
        pass
    pod.signal()
    await pod.line("draining")
    pod.signal()
    assert await pod.process.wait() == 128 + signal.SIGTERM
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()


async def test_what_outlasts_the_grace_is_cut_off(run: Run, connect: Any) -> None:
    pod = await run("--echo-fail=hang", "--shutdown-grace-seconds=0.3", "--drain-delay-seconds=0")
    channel = connect((await pod.line("ready"))["grpc"])
    call = stream(channel, 10)
    watch = worker_pb2_grpc.WorkerStub(channel).WatchLoad(v1.WatchLoadRequest())
    while not (await watch.read()).running:
        pass
    pod.signal()
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    assert await pod.process.wait() == 0


async def test_a_taken_port_is_named(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name in ("grpc", "http", "metrics"):
            pod = await run(f"--{name}-address={address}")
            _, said = await pod.process.communicate()
            assert pod.process.returncode == ExitCode.ADDRESS_IN_USE
            assert f"cannot listen on {address} (IPv4): ".encode() in said
            assert f"set another --{name}-address\n".encode() in said
            assert pod.message_file.read_text().startswith("AddressInUse: ")


async def test_a_missing_model_is_named(run: Run, tmp_path: Path) -> None:
    pod = await run(f"--model-path={tmp_path}/none", engine="vllm")
    _, said = await pod.process.communicate()
    assert pod.process.returncode == ExitCode.MODEL_NOT_FOUND
    assert f"{tmp_path}/none".encode() in said
    assert pod.message_file.read_text().startswith("ModelNotFound: ")


async def test_an_engine_that_cannot_start_ends_the_pod(run: Run) -> None:
    pod = await run("--echo-fail=start")
    _, said = await pod.process.communicate()
    assert pod.process.returncode == ExitCode.START_FAILED
    assert b"configured not to start" in said


async def test_a_dead_engine_ends_the_pod_with_its_cause(run: Run, connect: Any) -> None:
    pod = await run("--echo-fail=die-after-requests=0")
    channel = connect((await pod.line("ready"))["grpc"])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stream(channel, 1).read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await pod.process.wait() == ExitCode.ENGINE_DEAD
    assert "configured to die" in pod.message_file.read_text()


async def test_a_request_is_one_span_and_one_line_of_the_callers_trace(
    run: Run, connect: Any, tmp_path: Path
) -> None:
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    spans = tmp_path / "spans.jsonl"
    pod = await run(f"--traces=file:{spans}", "--drain-delay-seconds=0")
    channel = connect((await pod.line("ready"))["grpc"])
    metadata = (("traceparent", f"00-{trace_id}-{parent_id}-01"), ("x-request-id", "r1"))
    request = v1.GenerateRequest(model="echo", text="one two three")
    await inference_pb2_grpc.InferenceStub(channel).Generate(request, metadata=metadata)
    line = await pod.line("done")
    pod.signal()
    await pod.process.wait()
    (span,) = [json.loads(text) for text in spans.read_text().splitlines()]
    assert span["context"]["trace_id"] == f"0x{trace_id}"
    assert (span["parent_id"], span["kind"]) == (f"0x{parent_id}", "SpanKind.SERVER")
    assert span["attributes"]["gen_ai.usage.output_tokens"] == 6
    assert (line["trace_id"], line["request_id"], line["outcome"]) == (trace_id, "r1", "served")
    assert (line["model"], line["input_tokens"], line["output_tokens"]) == ("echo", 5, 6)


async def test_bad_settings_are_all_listed(run: Run) -> None:
    pod = await run("--max-num-seqs=0", "--echo-fail=explode")
    _, said = await pod.process.communicate()
    assert pod.process.returncode == ExitCode.BAD_SETTINGS
    assert b"--max-num-seqs" in said and b"--echo-fail" in said
