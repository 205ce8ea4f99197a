"""Gateways and echo pods as real processes: signals, exit codes, spans."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from tests.support import processes
from tests.support.processes import Process
from tests.support.senders import TEXT, kill_and_restart, send_grpc, send_rest
from tests.support.traffic import Send, traffic

from autoglm.common.process import ExitCode

pytestmark = pytest.mark.timeout(120)
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway-processes")


@pytest.fixture(scope="module")
def pods(logs: Path) -> Iterator[list[Process]]:
    pods = [processes.echo_pod(logs, f"echo-{n}") for n in range(2)]
    with processes.running(*pods):
        yield pods


@pytest.fixture
def gateway(logs: Path, pods: list[Process], plane: str) -> Iterator[Process]:
    (logs / "spans").unlink(missing_ok=True)
    traces = ("--traces", f"file:{logs / 'spans'}")
    gateway = processes.gateway(logs, pods, "--data-plane", plane, *traces)
    with processes.running(gateway):
        processes.eventually(lambda: gateway.ready_endpoints() == 2)
        yield gateway


@pytest.fixture
def channel(gateway: Process) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        yield channel


def senders(gateway: Process, channel: grpc.Channel) -> Sequence[Send]:
    return [send_grpc(channel)] * 2 + [send_rest(gateway)] * 2


def test_kill_9_of_a_pod_under_traffic_fails_no_request(
    pods: list[Process], gateway: Process, channel: grpc.Channel
) -> None:
    with traffic(senders(gateway, channel)) as result:
        kill_and_restart(pods[0], result)
    assert result.failures == []


def test_sigterm_of_a_pod_under_traffic_fails_no_request(
    pods: list[Process], gateway: Process, channel: grpc.Channel
) -> None:
    with traffic(senders(gateway, channel)) as result:
        result.wait_served(50)
        pods[0].signal(signal.SIGTERM)
        assert pods[0].wait() == 0
        result.wait_served(50)
        pods[0].start().wait_ready()
        result.wait_served(50)
    assert result.failures == []


def test_sigterm_of_a_gateway_under_traffic_fails_no_request(
    logs: Path, pods: list[Process], gateway: Process, plane: str
) -> None:
    other = processes.gateway(logs, pods, "--data-plane", plane)
    with processes.running(other):
        both = f"ipv4:{gateway.grpc_address},{other.grpc_address}"
        with grpc.insecure_channel(both) as channel, traffic([send_grpc(channel)] * 4) as result:
            result.wait_served(50)
            gateway.signal(signal.SIGTERM)
            assert gateway.wait() == 0
            result.wait_served(50)
        assert result.failures == []


def test_request_makes_one_trace_from_the_callers_on(
    logs: Path, gateway: Process, channel: grpc.Channel
) -> None:
    parent = f"00-{TRACE}-b7ad6b7169203331-01"
    send_grpc(channel, metadata=(("traceparent", parent),))()
    assert gateway.stop() == 0
    lines = (logs / "spans").read_text().splitlines()
    spans = {s["name"]: s for s in map(json.loads, lines) if TRACE in s["context"]["trace_id"]}
    server, client = spans["autoglm.v1.Inference/Generate"], spans["text_completion echo"]
    assert server["parent_id"] == "0xb7ad6b7169203331"
    assert {spans[name]["parent_id"] for name in ("admission", "route", client["name"])} == {
        server["context"]["span_id"]
    }
    kinds = {name: span["kind"].split(".")[-1] for name, span in spans.items()}
    assert kinds == {
        server["name"]: "SERVER",
        client["name"]: "CLIENT",
        "admission": "INTERNAL",
        "route": "INTERNAL",
    }
    attributes = client["attributes"]
    assert attributes["gen_ai.operation.name"] == "text_completion"
    assert attributes["gen_ai.usage.output_tokens"] > 0
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert TEXT not in "".join(lines)


def test_port_in_use_is_one_sentence_and_exit_code_75(logs: Path, plane: str) -> None:
    gateway = Process(f"taken-{plane}", ["gateway", "--data-plane", plane], logs / f"{plane}.log")
    with socket.create_server(("127.0.0.1", gateway.ports[0])):
        assert gateway.start().wait() == ExitCode.ADDRESS_IN_USE
    (line,) = gateway.log_tail().splitlines()
    assert gateway.grpc_address in line and "another address" in line


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--endpoint", "nonsense"), "--endpoint"),
        (("--max-inflight", "0"), "--max-inflight"),
        (("--traces", "nowhere"), "--traces"),
        (("--upstream-ca-file", "/nonexistent.pem"), "/nonexistent.pem"),
    ],
)
def test_bad_settings_are_named_and_exit_code_64(
    logs: Path, flags: Sequence[str], named: str
) -> None:
    gateway = Process("bad", ["gateway", *flags], logs / f"bad{flags[0]}.log")
    assert gateway.start().wait() == 64
    assert named in gateway.log_tail() and "Traceback" not in gateway.log_tail()
