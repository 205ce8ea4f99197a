"""Several processes that decide for one Envoy: all of them do, and none of them is missed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support import processes
from tests.support.asks import ask_grpc, ask_rest, kill_and_restart
from tests.support.processes import Process
from tests.support.traffic import Ask, traffic

from autoglm import v1
from autoglm.gateway.envoy import processes as several
from autoglm.gateway.envoy.config.names import Sockets
from autoglm.gateway.envoy.processes import Processes
from autoglm.gateway.settings import GatewaySettings
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = [pytest.mark.plane("envoy", "its own ways"), pytest.mark.timeout(120)]
COUNT = 3


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[list[Process]]:
    pods = [processes.echo_pod(tmp_path, f"echo-{n}") for n in range(2)]
    with processes.running(*pods):
        yield pods


@pytest.fixture
def gateway(tmp_path: Path, pods: list[Process]) -> Iterator[Process]:
    gateway = served_by_several(tmp_path, pods)
    with processes.running(gateway):
        all_decide(gateway)
        yield gateway


def served_by_several(directory: Path, pods: list[Process]) -> Process:
    return processes.gateway(directory, pods, "--data-plane", "envoy", "--processes", str(COUNT))


def all_decide(gateway: Process) -> None:
    processes.eventually(lambda: len(deciding(gateway)) == COUNT, what="all processes decide")


def helpers(gateway: Process) -> list[int]:
    """The process ids of all but the first."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [int(c) for c in children if Path(f"/proc/{c}/comm").read_text().strip() != "envoy"]


def by_process(gateway: Process, name: str) -> dict[str, float]:
    """The values on /metrics, of all other labels together."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(gateway.get("/metrics")[1]):
        for sample in family.samples:
            if sample.name == name:
                number = sample.labels["process"]
                found[number] = found.get(number, 0.0) + sample.value
    return found


def deciding(gateway: Process) -> set[str]:
    """The numbers of those that show their metrics."""
    return set(by_process(gateway, "autoglm_gateway_requests_in_flight"))


def asks(gateway: Process, channel: grpc.Channel) -> list[Ask]:
    return [ask_grpc(channel)] * 3 + [ask_rest(gateway)] * 3


def test_all_processes_decide_and_each_hears_how_its_calls_end(gateway: Process) -> None:
    with (
        grpc.insecure_channel(gateway.grpc_address) as channel,
        traffic(asks(gateway, channel)) as result,
    ):
        result.wait_served(300)
    assert result.failures == []
    served = by_process(gateway, "autoglm_gateway_requests_total")
    assert set(served) == {str(n) for n in range(COUNT)}
    assert min(served.values()) > sum(served.values()) / (4 * COUNT), served
    held = "autoglm_gateway_requests_in_flight"
    processes.eventually(lambda: gateway.metric(held) == 0, seconds=5, what="all places are free")


def test_what_a_dead_pod_does_not_serve_returns_to_the_process_that_decided(
    pods: list[Process], gateway: Process
) -> None:
    """Any other process would not know the call, and serve a second one."""
    with (
        grpc.insecure_channel(gateway.grpc_address) as channel,
        traffic(asks(gateway, channel)) as result,
    ):
        kill_and_restart(pods[0], result)
    assert result.failures == []
    total = "autoglm_gateway_requests_total"
    processes.eventually(lambda: gateway.metric(total) >= result.served, what="all are counted")
    assert gateway.metric(total) == result.served
    assert gateway.metric("autoglm_gateway_retries_total") > 0


def test_kill_9_of_a_deciding_process_costs_no_response_and_it_comes_back(gateway: Process) -> None:
    """Its pending decisions are repeated by another process."""
    with (
        grpc.insecure_channel(gateway.grpc_address) as channel,
        traffic(asks(gateway, channel)) as result,
    ):
        result.wait_served(50)
        killed = helpers(gateway)[0]
        os.kill(killed, signal.SIGKILL)
        result.wait_served(200)
        all_decide(gateway)
        result.wait_served(50)
    assert result.failures == []
    assert killed not in helpers(gateway) and len(helpers(gateway)) == COUNT - 1
    restarts = "autoglm_gateway_process_restarts_total"
    assert gateway.metric(restarts) == 1
    assert "worker exited unexpectedly" in gateway.log_tail(10_000)


async def test_a_process_that_hangs_is_ended_and_restarted(
    tmp_path: Path, pods: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "HUNG_SECONDS", 1.0)
    settings = GatewaySettings(
        data_plane="envoy",
        processes=2,
        endpoint=tuple(f"grpc://{pod.grpc_address}" for pod in pods),
    )
    ended: asyncio.Queue[int] = asyncio.Queue()
    socket = Sockets(tmp_path).of(1)
    others = Processes(settings, Sockets(tmp_path), ended.put_nowait)
    others.start()
    try:
        async with asyncio.timeout(60):
            await listens(socket)
            (first,) = others.pids
            os.kill(first, signal.SIGSTOP)
            assert await ended.get() == 1
            await listens(socket)
        assert others.pids != (first,)
    finally:
        await others.close()
    assert not processes.is_alive(first)


async def listens(sockets: Sockets) -> None:
    while True:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(1):
                _, writer = await asyncio.open_unix_connection(sockets.picker)
            writer.close()
            return
        await asyncio.sleep(0.05)


def test_drain_under_traffic_fails_no_request_of_any_process(
    tmp_path: Path, pods: list[Process], gateway: Process
) -> None:
    other = processes.gateway(tmp_path, pods, "--data-plane", "envoy")
    with processes.running(other):
        both = f"ipv4:{gateway.grpc_address},{other.grpc_address}"
        with grpc.insecure_channel(both) as channel, traffic([ask_grpc(channel)] * 6) as result:
            result.wait_served(100)
            children = helpers(gateway)
            gateway.signal(signal.SIGTERM)
            assert gateway.wait() == 0
            result.wait_served(50)
    assert result.failures == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_all_processes_end_when_the_first_is_killed(gateway: Process) -> None:
    children = helpers(gateway)
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    gone = lambda: not any(processes.is_alive(pid) for pid in children)  # noqa: E731
    processes.eventually(gone, what="the others have ended")


def test_streams_on_pods_outlive_the_process_that_sent_them_there(tmp_path: Path) -> None:
    """Bytes are Envoy's: what has begun ends, whichever process decided it."""
    pod = processes.echo_pod(tmp_path, "slow", "--echo-token-rate", "100")
    ask = v1.GenerateRequest(
        model="echo", text="word " * 200, sampling_params=v1.SamplingParams(max_tokens=200)
    )
    gateway = served_by_several(tmp_path, [pod])
    with (
        processes.running(pod),
        processes.running(gateway),
        grpc.insecure_channel(gateway.grpc_address) as channel,
    ):
        all_decide(gateway)
        # So many that hardly ever a process decides none of them.
        streams = [InferenceStub(channel).GenerateStream(ask, timeout=60) for _ in range(40)]
        firsts = [next(stream) for stream in streams]
        held = by_process(gateway, "autoglm_gateway_requests_in_flight")
        assert min(held.values()) > 0, "each process has sent some of them there"
        for pid in helpers(gateway):
            os.kill(pid, signal.SIGKILL)
        tokens = [
            len(first.token_ids) + sum(len(chunk.token_ids) for chunk in stream)
            for first, stream in zip(firsts, streams, strict=True)
        ]
    assert set(tokens) == {200}


def test_log_lines_of_the_others_say_which_process_writes(gateway: Process) -> None:
    lines = [json.loads(line) for line in gateway.log_tail(10_000).splitlines()]
    listening = [line for line in lines if line["message"] == "listening"]
    assert sorted(line.get("process", 0) for line in listening) == list(range(COUNT))


def test_process_lists_show_no_secret(tmp_path: Path, pods: list[Process]) -> None:
    flags = ("--data-plane", "envoy", "--processes", "2")
    gateway = processes.gateway(tmp_path, pods, *flags)
    gateway.environment = {"AUTOGLM_UPSTREAM_API_KEY": "very-secret"}
    with processes.running(gateway):
        processes.eventually(lambda: len(helpers(gateway)) == 1, what="the other has started")
        (helper,) = helpers(gateway)
        told = Path(f"/proc/{helper}/cmdline").read_text()
    assert "secret" not in told and re.search(r"\b1\b", told.replace("\0", " "))
