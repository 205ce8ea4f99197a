"""Pods, networks and gateways fail under continuous traffic; clients notice nothing but time.

Responses are compared with those of an undisturbed run, token by token up to the first difference,
which may only be a tie: see tests/support/fidelity.py.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import grpc
import pytest
from tests.support import processes
from tests.support.chaos_fidelity import Fidelity, measure, threshold
from tests.support.chaos_ways import GRPC_WAYS, SECONDS, GenerateStream, Way, ways
from tests.support.fidelity import Fork, Said
from tests.support.processes import Process
from tests.support.tcp_proxy import TcpProxy
from tests.support.traffic import Send, Traffic, traffic

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
Address = Callable[[], str]
Figures = Callable[[Traffic, float], None]
Undisturbed = Sequence[tuple[Way, Said]]


@pytest.fixture(scope="module")
def undisturbed(pods: list[Process]) -> Undisturbed:
    """What each way says when nothing happens, from a pod itself."""
    pod = pods[0]
    return [(way, way.say(pod.grpc_address, pod.http_address)) for way in ways()]


def senders(
    undisturbed: Undisturbed, fidelity: Fidelity, grpc_address: Address, http_address: Address
) -> list[Send]:
    """One for each way; what it reads is noted with what is expected."""

    def sender(way: Way, expected: Said) -> Send:
        return lambda: fidelity.note(way, expected, way.say(grpc_address(), http_address()))

    return [sender(way, expected) for way, expected in undisturbed]


def of(gateway: Process, undisturbed: Undisturbed, fidelity: Fidelity) -> list[Send]:
    return senders(
        undisturbed, fidelity, lambda: gateway.grpc_address, lambda: gateway.http_address
    )


def recovered(gateway: Process) -> float:
    page = gateway.get("/metrics")[1]
    found = re.search(r'^autoglm_gateway_recoveries_total\{outcome="recovered"\} (\S+)', page, re.M)
    return float(found[1]) if found else 0.0


@contextmanager
def watched(gateway: Process, senders: list[Send], figures: Figures) -> Iterator[Traffic]:
    """Traffic in which nothing may fail; its figures are kept."""
    before = recovered(gateway)
    with traffic(senders) as result:
        result.wait_served(6)
        yield result
    figures(result, recovered(gateway) - before)
    assert result.failures == []


def until_busy(pod: Process) -> None:
    def is_busy() -> bool:
        found = re.search(r"^vllm:num_requests_running\S* (\S+)$", pod.get("/metrics")[1], re.M)
        return found is not None and float(found[1]) >= 2

    processes.eventually(is_busy, what="the pod has several requests")


def knows_both(gateway: Process) -> bool:
    return gateway.ready_endpoints() == 2


def strike_in_mid_stream(
    gateway: Process,
    pod: Process,
    strike: Callable[[], None],
    mend: Callable[[], None],
    result: Traffic,
) -> None:
    """Strikes again until a stream was hit: those seen on the pod may just have ended."""
    before = recovered(gateway)
    for _ in range(6):
        until_busy(pod)
        strike()
        # Silence is noticed after three seconds, in which a quick machine serves more than 20.
        processes.eventually(lambda: not knows_both(gateway), what="the gateway has noticed")
        result.wait_served(20)
        mend()
        if recovered(gateway) > before:
            return
    pytest.fail("no stream was on the pod in six tries")


def test_the_measure_explains_the_choices_of_an_undisturbed_run(
    pods: list[Process], undisturbed: Undisturbed
) -> None:
    """Of penalties and of a seeded sampler too; otherwise it could take anything for a tie."""
    for way, said in undisturbed:
        if isinstance(way, GenerateStream):
            for index, ids in enumerate(said.choices):
                fork = Fork(index, ids[:-1], ids[-1], seen=(ids[-1] + 1) % 1000)
                gap = min(m.expected - m.seen for m in measure(pods[1], way, fork))
                assert gap > threshold(way, fork)


def test_kill_9_in_mid_stream(
    pods: list[Process],
    gateways: list[Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    revive: Callable[[Process], None],
    figures: Figures,
) -> None:
    gateway, pod = gateways[0], pods[0]
    with watched(gateway, of(gateway, undisturbed, fidelity), figures) as result:

        def start_again() -> None:
            with result.slowed():
                revive(pod)

        strike_in_mid_stream(gateway, pod, pod.kill, start_again, result)


def test_a_pod_that_hangs(
    pods: list[Process],
    gateways: list[Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    figures: Figures,
) -> None:
    gateway, pod = gateways[0], pods[1]

    def wake() -> None:
        pod.signal(signal.SIGCONT)
        processes.eventually(lambda: knows_both(gateway))

    try:
        with watched(gateway, of(gateway, undisturbed, fidelity), figures) as result:
            strike_in_mid_stream(gateway, pod, lambda: pod.signal(signal.SIGSTOP), wake, result)
    finally:
        pod.signal(signal.SIGCONT)
    # Sooner than by any request's own limit.
    assert max(result.seconds) < 0.8 * SECONDS


@pytest.fixture
def proxied(logs: Path, pods: list[Process]) -> Iterator[tuple[TcpProxy, Process]]:
    """A gateway that reaches the first pod's gRPC port through a proxy, the second one directly."""
    with TcpProxy(pods[0].grpc_address) as proxy:
        addresses = (proxy.address, pods[1].grpc_address)
        endpoints = [part for a in addresses for part in ("--endpoint", f"grpc://{a}")]
        gateway = Process("proxied", ["gateway", *endpoints], logs / "proxied.log")
        with processes.running(gateway):
            processes.eventually(lambda: knows_both(gateway))
            yield proxy, gateway


def test_connections_that_are_reset(
    proxied: tuple[TcpProxy, Process],
    pods: list[Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    figures: Figures,
) -> None:
    proxy, gateway = proxied
    with watched(gateway, of(gateway, undisturbed, fidelity), figures) as result:
        for _ in range(3):
            until_busy(pods[0])
            proxy.reset()
            result.wait_served(6)


def test_connections_that_are_half_open(
    proxied: tuple[TcpProxy, Process],
    pods: list[Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    figures: Figures,
) -> None:
    proxy, gateway = proxied
    # REST goes to the pod's own HTTP port, which has no proxy.
    with watched(gateway, of(gateway, undisturbed, fidelity)[:GRPC_WAYS], figures) as result:
        until_busy(pods[0])
        proxy.go_deaf()
        # Nothing may be healed by hearing again too soon.
        processes.eventually(lambda: not knows_both(gateway))
        result.wait_served(12)
        proxy.hear()
        result.wait_served(3)


def test_a_slow_pod(
    proxied: tuple[TcpProxy, Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    figures: Figures,
) -> None:
    proxy, gateway = proxied
    with watched(gateway, of(gateway, undisturbed, fidelity), figures) as result:
        proxy.delay_seconds = 0.5
        result.wait_served(12)
        proxy.delay_seconds = 0.0
        result.wait_served(6)


def patient(send: Send, seconds: float = 240.0) -> Send:
    """Repeats the request until it succeeds, as clients do that retry."""

    def send_patiently() -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                return send()
            except (grpc.RpcError, OSError, HTTPException):
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)

    return send_patiently


def test_all_pods_gone_and_back(
    pods: list[Process],
    gateways: list[Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    figures: Figures,
) -> None:
    patiently = [patient(send) for send in of(gateways[0], undisturbed, fidelity)]
    with watched(gateways[0], patiently, figures) as result:
        for pod in pods:
            pod.kill()
        processes.eventually(lambda: not gateways[0].is_ready())
        with result.slowed():
            for pod in pods:
                pod.start()
            for pod in pods:
                pod.wait_ready()
        result.wait_served(12)
    processes.eventually(lambda: all(map(knows_both, gateways)))


def test_kill_9_and_restart_of_a_gateway(
    gateways: list[Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    revive: Callable[[Process], None],
    figures: Figures,
) -> None:
    patiently = [patient(send) for send in of(gateways[1], undisturbed, fidelity)]
    with traffic(patiently) as result:
        result.wait_served(6)
        gateways[1].kill()
        revive(gateways[1])
        result.wait_served(12)
    figures(result, recovered(gateways[1]))
    assert result.failures == []


def test_rolling_restart_of_everything(
    pods: list[Process],
    gateways: list[Process],
    undisturbed: Undisturbed,
    fidelity: Fidelity,
    revive: Callable[[Process], None],
    figures: Figures,
) -> None:
    """Clients choose a ready gateway for each request, as a Service does."""

    def ready() -> Process:
        return next(g for g in gateways if g.is_ready())

    chosen = senders(
        undisturbed, fidelity, lambda: ready().grpc_address, lambda: ready().http_address
    )
    with traffic(chosen) as result:
        result.wait_served(6)
        for process in (*pods, *gateways):
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            with result.slowed():
                revive(process)
            result.wait_served(6)
    figures(result, sum(map(recovered, gateways)))
    assert result.failures == []


def test_a_full_disk_under_the_logs(
    pods: list[Process], undisturbed: Undisturbed, fidelity: Fidelity, figures: Figures
) -> None:
    endpoints = [p for pod in pods for p in ("--endpoint", f"grpc://{pod.grpc_address}")]
    gateway = Process("full", ["gateway", *endpoints], Path("/dev/full"))
    gateway.start()
    try:
        processes.eventually(gateway.is_ready)
        with watched(gateway, of(gateway, undisturbed, fidelity), figures) as result:
            result.wait_served(12)
    finally:
        gateway.stop()
