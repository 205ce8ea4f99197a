"""The Envoy plane's own ways, with a real Envoy: configuration, drain, limits, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import grpc
import pytest
import trustme
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import errors, rpc, status
from autoglm.gateway.envoy import config, program
from autoglm.gateway.envoy.config import PLANE_HEADER, PLANE_WITHOUT, Sockets, bootstrap
from autoglm.gateway.settings import GatewaySettings
from autoglm.http1.rules import Timeouts
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = [pytest.mark.plane("envoy", "its own ways"), pytest.mark.timeout(60)]
ASK = v1.GenerateRequest(model="fake", text="Hello")


def certificates(directory: Path) -> dict[str, str]:
    """The settings of mutual TLS."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    names = {n: str(directory / f"{n}.pem") for n in ("cert", "key", "ca")}
    leaf.private_key_pem.write_to_path(names["key"])
    leaf.cert_chain_pems[0].write_to_path(names["cert"])
    authority.cert_pem.write_to_path(names["ca"])
    return {
        "tls_cert_file": names["cert"],
        "tls_key_file": names["key"],
        "tls_client_ca_file": names["ca"],
    }


@pytest.mark.parametrize(
    ("files", "origins"),
    [((), ()), (("cert", "key"), ("*",)), (("cert", "key", "client_ca"), ("https://a.example",))],
    ids=["plain", "tls and any origin", "mutual tls and an origin"],
)
def test_envoy_finds_nothing_wrong_with_its_configuration(
    tmp_path: Path, files: tuple[str, ...], origins: tuple[str, ...]
) -> None:
    all_files = certificates(tmp_path)
    used = {name: all_files[name] for name in (f"tls_{file}_file" for file in files)}
    proxies = ("10.0.0.0/8",) if files else ()
    values = {"data_plane": "envoy", "allowed_origins": origins, "trusted_proxies": proxies} | used
    settings = GatewaySettings.load(values).with_memory(2**30)
    listen: Any = {"grpc": ("127.0.0.1", 0), "http": ("::1", 0)}
    file = tmp_path / "envoy.yaml"
    file.write_text(bootstrap(settings, Sockets(tmp_path), listen), "utf-8")
    command = [program.find(), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr[-2000:]


async def test_responses_of_pods_say_what_this_plane_leaves_out(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    call = (await fleet.stub(await fleet.gateway(pod))).Generate(ASK)
    await call
    assert dict(await call.initial_metadata())[PLANE_HEADER] == PLANE_WITHOUT


async def test_clients_cannot_name_a_pod_or_a_call(fleet: Any) -> None:
    first, second = await fleet.pods(FakePod(), FakePod(model="other"))
    stub = await fleet.stub(await fleet.gateway(first, second))
    theirs = (
        ("x-gateway-destination-endpoint", f"127.0.0.1:{second.port}"),
        ("x-autoglm-call", "mine"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
    )
    await stub.Generate(ASK, metadata=theirs)
    assert (len(first.received), len(second.received)) == (1, 0)
    assert first.received[0].metadata["x-autoglm-call"] != "mine"


async def test_client_that_stops_reading_loses_its_stream(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    short = ("first_token", "chunk", "queue")
    limits = {f"{name}_timeout_seconds": 1.0 for name in short} | {"slow_reader_seconds": 1.0}
    gateway = await fleet.gateway(pod, **limits)
    pod.open_gate.clear()
    stream = (await fleet.stub(gateway)).GenerateStream(ASK)
    await stream.read()
    await fleet.until(lambda: pod.cancelled == 1 and fleet.in_flight(gateway) == 0)
    stream.cancel()


async def test_bodies_over_the_limit_reach_no_pod(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, max_body_bytes=2**20)
    stub = await fleet.stub(gateway)
    for size in (2**20, 2**23):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(v1.GenerateRequest(model="fake", text="x" * size))
        assert isinstance(status.from_grpc(caught.value), errors.RequestTooLarge)
    await fleet.until(lambda: len(gateway.core.exchanges) == 0)
    assert pod.received == []


async def test_a_body_of_unknown_length_over_the_limit_gets_openais_error(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, max_body_bytes=2**20)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b" " * 2**19

    url = f"http://127.0.0.1:{gateway.http_port}/v1/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=pieces()) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["code"] == "request_too_large"


async def test_draining_gateway_directs_clients_to_connect_elsewhere(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, drain_delay_seconds=5.0)
    url = f"http://127.0.0.1:{gateway.http_port}/v1/models"
    async with aiohttp.ClientSession() as session:

        async def connection() -> str:
            async with session.get(url) as answer:
                assert answer.status == 200
                return answer.headers.get("connection", "")

        assert await connection() == ""
        drain = asyncio.create_task(gateway.drain())
        async with asyncio.timeout(5.0):
            while await connection() != "close":
                pass
        await drain


async def test_tls_of_the_settings_is_envoys(fleet: Any, tmp_path: Path) -> None:
    (pod,) = await fleet.pods(FakePod())
    files = certificates(tmp_path)
    gateway = await fleet.gateway(pod, **files)
    names = ("tls_client_ca_file", "tls_key_file", "tls_cert_file")
    blobs = [await asyncio.to_thread(Path(files[n]).read_bytes) for n in names]
    ours, stranger = grpc.ssl_channel_credentials(*blobs), grpc.ssl_channel_credentials(blobs[0])
    address = f"localhost:{gateway.grpc_port}"
    async with grpc.aio.secure_channel(address, ours) as channel:
        assert (await InferenceStub(channel).Generate(ASK)).completions
    async with grpc.aio.secure_channel(address, stranger) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await InferenceStub(channel).Generate(ASK)


async def test_error_of_the_gateway_is_whole(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    stub = await fleet.stub(await fleet.gateway(pod))
    wrong = v1.GenerateRequest(model="fake", text="")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(wrong, metadata=(("x-request-id", "mine"),))
    refused = status.from_grpc(caught.value)
    assert isinstance(refused, errors.InvalidRequest) and refused.field == "text"
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers["x-request-id"] == "mine" and rpc.CALL_HEADER not in trailers


def envoy_of(gateway: Process) -> int:
    """The process id of a gateway's Envoy."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    (pid,) = (int(c) for c in children if Path(f"/proc/{c}/comm").read_text().strip() == "envoy")
    return pid


def test_gateway_ends_when_its_envoy_does(tmp_path: Path) -> None:
    pod = processes.echo_pod(tmp_path)
    gateway = processes.gateway(tmp_path, [pod], "--data-plane", "envoy")
    with processes.running(pod, gateway):
        os.kill(envoy_of(gateway), signal.SIGKILL)
        assert gateway.wait() == 73
    assert "Envoy ended with code -9" in gateway.log_tail()


def test_envoy_ends_when_its_gateway_is_killed(tmp_path: Path) -> None:
    pod = processes.echo_pod(tmp_path)
    gateway = processes.gateway(tmp_path, [pod], "--data-plane", "envoy")
    with processes.running(pod, gateway):
        envoy = envoy_of(gateway)
        gateway.signal(signal.SIGKILL)
        gateway.wait()
        processes.eventually(lambda: not processes.is_alive(envoy), what="Envoy has ended")


def test_missing_package_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    hidden = tmp_path / "envoy"
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    gateway = processes.gateway(tmp_path, [], "--data-plane", "envoy")
    gateway.environment = {"PATH": "/nowhere", "PYTHONPATH": path}
    assert gateway.start().wait() == 70
    (line,) = gateway.log_tail().splitlines()
    assert "pip install " in line and "[envoy]'" in line


@pytest.mark.parametrize(
    ("wire", "sent"),
    [
        ("http", b""),
        ("http", b"GET /health HTTP/1.1\r\nHost: h\r\nx-slow: "),
        ("grpc", b""),
        ("grpc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    ],
    ids=["idle", "slow head", "idle gRPC", "idle gRPC after its preface"],
)
async def test_clients_that_send_nothing_more_are_disconnected_and_streams_are_not(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, wire: str, sent: bytes
) -> None:
    monkeypatch.setattr(config, "DEFAULT_TIMEOUTS", Timeouts(head=0.5, idle=1.0))
    (pod,) = await fleet.pods(FakePod(text="one two"))
    gateway = await fleet.gateway(pod)
    pod.open_gate.clear()
    stream = (await fleet.stub(gateway)).GenerateStream(ASK)
    assert (await stream.read()).text == "one"
    port = gateway.http_port if wire == "http" else gateway.grpc_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(30):
        # Frames, or a response of 408, and then the end of the connection.
        while await reader.read(4096):
            pass
    writer.close()
    # It has been silent for longer than both timeouts.
    pod.open_gate.set()
    assert (await stream.read()).text == " two"


async def test_python_does_nothing_for_a_chunk(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod(text="a " * 400))
    stub = await fleet.stub(await fleet.gateway(pod))
    begun: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "autoglm/gateway/" in frame.f_code.co_filename:
            begun[frame.f_code.co_qualname] += 1

    # The first one makes connections and caches.
    for _ in range(2):
        begun.clear()
        sys.setprofile(note)
        chunks = [chunk async for chunk in stub.GenerateStream(ASK)]
        sys.setprofile(None)
    assert len(chunks) > 400 and begun["CheckEdge.serve"] > 0
    # What is done for each chunk would be called as often; load messages and health continue.
    assert begun.most_common(1)[0][1] < len(chunks) / 2, begun.most_common(5)


async def test_connections_of_one_address_leave_room_for_others(fleet: Any) -> None:
    gateway = await fleet.gateway(max_connections_per_address=2)
    for port in (gateway.http_port, gateway.grpc_port):
        async with AsyncExitStack() as stack:

            async def is_open(address: str, port: int = port, stack: Any = stack) -> bool:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=(address, 0)
                )
                stack.callback(writer.close)
                with suppress(TimeoutError, ConnectionError):
                    await asyncio.wait_for(reader.read(1), 0.3)
                return not (reader.at_eof() or reader.exception())

            kept = [await is_open("127.0.0.2") for _ in range(4)]
            assert kept == [True, True, False, False]
            assert await is_open("127.0.0.3")
