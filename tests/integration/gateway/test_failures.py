"""Pods that die, hang, drain and come back under a gateway, and gateways that drain."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from autoglm import v1
from autoglm.common import errors, rpc, status
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub

ASK = v1.GenerateRequest(model="fake", text="Hello")


async def send_until(stub: Any, ended: asyncio.Event) -> int:
    """Sends requests without a pause; how many responses came. Any failure is the test's."""
    answered = 0
    while not ended.is_set():
        assert (await stub.Generate(ASK)).completions[0].text == "Hello there."
        answered += 1
    return answered


async def traffic(fleet: Any, gateway: Any, ended: asyncio.Event) -> list[asyncio.Task[int]]:
    stub = await fleet.stub(gateway)
    return [asyncio.create_task(send_until(stub, ended)) for _ in range(4)]


async def test_killed_pod_fails_no_request_and_leaves_with_its_connection(fleet: Any) -> None:
    first, second = await fleet.pods(FakePod(), FakePod())
    # Not by its silence.
    gateway = await fleet.gateway(first, second, load_timeout_seconds=3600)
    ended = asyncio.Event()
    clients = await traffic(fleet, gateway, ended)
    await fleet.until(lambda: len(first.received) > 20)
    await first.stop(grace=0)
    await fleet.until(lambda: fleet.routable(gateway) == 1)
    alone = len(second.received)
    await fleet.until(lambda: len(second.received) > alone + 20)
    await first.start()
    await fleet.until(lambda: fleet.routable(gateway) == 2)
    back = len(first.received)
    await fleet.until(lambda: len(first.received) > back + 20)
    ended.set()
    assert sum(await asyncio.gather(*clients)) > 60


async def test_draining_pod_fails_no_request(fleet: Any) -> None:
    first, second = await fleet.pods(FakePod(), FakePod())
    gateway = await fleet.gateway(first, second)
    ended = asyncio.Event()
    clients = await traffic(fleet, gateway, ended)
    await fleet.until(lambda: len(first.received) > 20)
    # It refuses at once, before the load message says so.
    first.update(draining=True)
    await first.stop(grace=2)
    alone = len(second.received)
    await fleet.until(lambda: len(second.received) > alone + 20)
    ended.set()
    assert sum(await asyncio.gather(*clients)) > 40


async def test_silent_pod_leaves_the_pool_and_returns(fleet: Any) -> None:
    pods = await fleet.pods(FakePod(), FakePod())
    gateway = await fleet.gateway(*pods, load_timeout_seconds=1.5)
    pods[0].silent = True
    await fleet.until(lambda: fleet.routable(gateway) == 1)
    (view,) = [v for v in gateway.core.pool.views if not v.is_routable]
    assert (view.url, view.state.why) == (pods[0].url, "no load report for 1.5 s")
    pods[0].update(silent=False)
    await fleet.until(lambda: fleet.routable(gateway) == 2)


async def test_gateway_without_pods_says_why_and_when_to_retry(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    stub = await fleet.stub(gateway)
    await pod.stop()
    await fleet.until(lambda: fleet.routable(gateway) == 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(ASK)
    refused = status.from_grpc(caught.value)
    assert isinstance(refused, errors.NoReadyEndpoint) and refused.retry_after == 1.0
    assert pod.url in refused.message


async def test_health_follows_the_pods(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    async with rpc.channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="fake"))
        async with asyncio.timeout(30):
            await _status(watch, health_pb2.HealthCheckResponse.SERVING)
            overall = await stub.Check(health_pb2.HealthCheckRequest())
            assert overall.status == health_pb2.HealthCheckResponse.SERVING
            await pod.stop()
            await _status(watch, health_pb2.HealthCheckResponse.NOT_SERVING)
            await pod.start()
            await _status(watch, health_pb2.HealthCheckResponse.SERVING)
        watch.cancel()


async def _status(watch: Any, wanted: int) -> None:
    while (await watch.read()).status != wanted:
        pass


async def test_pods_report_their_load_more_seldom_as_they_become_more(
    fleet: Any, tmp_path: Path
) -> None:
    first, *others = await fleet.pods(*(FakePod() for _ in range(6)))
    file = tmp_path / "endpoints.json"
    file.write_text(json.dumps({"endpoints": [first.url]}))
    gateway = await fleet.gateway(ready=1, endpoints_file=str(file), load_messages_per_second=10)
    assert first.load_intervals == [0.1]
    file.write_text(json.dumps({"endpoints": [first.url, *(pod.url for pod in others)]}))
    await fleet.until(lambda: fleet.routable(gateway) == 6 and len(first.load_intervals) == 2)
    asked = [first.load_intervals[-1], *(pod.load_intervals[-1] for pod in others)]
    assert asked == pytest.approx([0.6] * 6)
    # The stream that was reopened is no failure of the pod's.
    (view,) = (v for v in gateway.core.pool.views if v.url == first.url)
    assert view.state.failures == 0 and len(first.load_intervals) == 2


async def test_endpoints_file_is_followed_and_a_bad_one_changes_nothing(
    fleet: Any, tmp_path: Path
) -> None:
    first, second = await fleet.pods(FakePod(), FakePod(model="other"))
    file = tmp_path / "endpoints.json"
    file.write_text(json.dumps({"endpoints": [first.url]}))
    gateway = await fleet.gateway(ready=1, endpoints_file=str(file))
    file.write_text("{")
    file.with_suffix(".new").write_text(json.dumps({"endpoints": [first.url, second.url]}))
    assert fleet.routable(gateway) == 1
    file.with_suffix(".new").replace(file)
    await fleet.until(lambda: fleet.routable(gateway) == 2)
    file.write_text(json.dumps({"endpoints": [second.url]}))
    await fleet.until(lambda: set(gateway.core.snapshot().models) == {"other"})


async def test_draining_gateway_finishes_streams_and_takes_requests_meanwhile(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, drain_delay_seconds=0.2)
    stub = await fleet.stub(gateway)
    pod.open_gate.clear()
    stream = stub.GenerateStream(ASK)
    assert (await stream.read()).text == "Hello"
    drain = asyncio.create_task(gateway.drain())
    await fleet.until(lambda: not gateway.is_ready()[0])
    late = stub.GenerateStream(ASK)
    assert (await late.read()).text == "Hello"
    pod.open_gate.set()
    assert [(await one.read()).text for one in (stream, late)] == [" there.", " there."]
    while await stream.read() or await late.read():
        pass
    await drain


async def test_two_gateways_drain_one_after_the_other_without_a_failure(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateways = [await fleet.gateway(pod, drain_delay_seconds=0.2) for _ in range(2)]
    target = "ipv4:" + ",".join(f"127.0.0.1:{gateway.grpc_port}" for gateway in gateways)
    ended = asyncio.Event()
    # As third-party clients have it. A request that gRPC has not sent yet when its connection gets
    # a GOAWAY is sent on another one, unless retries are off as they are in our own channels.
    async with grpc.aio.insecure_channel(target) as channel:
        clients = [asyncio.create_task(send_until(InferenceStub(channel), ended)) for _ in range(4)]
        await fleet.until(lambda: len(pod.received) > 20)
        await gateways[0].drain()
        await fleet.until(lambda: len(pod.received) > 100)
        ended.set()
        assert sum(await asyncio.gather(*clients)) > 80


async def test_watcher_of_health_does_not_hold_up_a_drain(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, shutdown_grace_seconds=60)
    async with rpc.channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        async with asyncio.timeout(30):
            await gateway.drain()
        watch.cancel()


async def test_new_connections_to_the_pods_fail_no_request_and_break_no_stream(fleet: Any) -> None:
    first, second, slow = await fleet.pods(FakePod(), FakePod(), FakePod(model="slow"))
    gateway = await fleet.gateway(first, second, slow)
    stub, ended = await fleet.stub(gateway), asyncio.Event()
    slow.open_gate.clear()
    stream = stub.GenerateStream(v1.GenerateRequest(model="slow", text="Hello"))
    assert (await stream.read()).text == "Hello"
    clients = await traffic(fleet, gateway, ended)
    for count in (25, 50):
        await fleet.until(lambda count=count: len(first.received) > count)
        gateway.core.reconnect()
    await fleet.until(lambda: len(first.received) > 75)
    assert fleet.routable(gateway) == 3
    ended.set()
    assert sum(await asyncio.gather(*clients)) > 75
    slow.open_gate.set()
    assert (await stream.read()).text == " there."
    while await stream.read():
        pass
