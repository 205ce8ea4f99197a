"""Rates come from two pages of one process, and are unknown in all other cases."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry, Counter

from autoglm.common.admin_server import AdminServer
from autoglm.local.child import Files
from autoglm.local.member import Member
from autoglm.local.planning import Addresses, Process, Replica, State, Workload
from autoglm.local.rates import UNKNOWN, Counts, Rate, Rates, counts_of, poll

POD = """
# TYPE autoglm_inference_requests_total counter
autoglm_inference_requests_total{method="Chat",outcome="served",protocol="grpc"} 3.0
autoglm_inference_requests_total{method="POST /v1/chat/completions",protocol="http"} 4.0
autoglm_inference_requests_created{method="Chat"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="a {b}"} 1.2e+03
vllm:generation_tokens_total{engine="1",model_name="a"} 34.0
vllm:prompt_tokens_total{engine="1",model_name="a"} 99.0
"""


def pod(requests: int, tokens: int) -> str:
    return f"autoglm_inference_requests_total {requests}\nvllm:generation_tokens_total {tokens}\n"


def test_counters_are_added_over_their_labels() -> None:
    assert counts_of(POD) == Counts(7.0, 1234.0)


def test_a_gateway_counts_no_tokens() -> None:
    page = 'autoglm_gateway_requests_total{model="m"} 2.0\n'
    assert counts_of(page) == Counts(2.0, None)


def test_a_rate_is_what_was_added_between_the_last_two_pages() -> None:
    rates = Rates()
    rates.note("m-0", 7, pod(1, 10), now=100.0)
    assert rates.of("m-0") == UNKNOWN
    rates.note("m-0", 7, pod(3, 210), now=102.0)
    assert rates.of("m-0") == Rate(1.0, 100.0)
    rates.note("m-0", 7, pod(3, 210), now=104.0)
    assert rates.of("m-0") == Rate(0.0, 0.0)


def test_a_page_that_does_not_respond_and_a_restart_make_a_rate_unknown() -> None:
    rates = Rates()
    for pid, page in ((7, pod(1, 1)), (7, None), (7, pod(2, 2)), (8, pod(1, 1))):
        rates.note("m-0", pid, page, now=100.0 + pid)
        assert rates.of("m-0") == UNKNOWN


def member(name: str, port: int, state: State = State.READY) -> Member:
    workload = Workload(name, 1, Process(("x",)))
    replica = Replica(name, 0, "r", state, since=0.0)
    at = Addresses(metrics=f"127.0.0.1:{port}")
    return Member(replica, workload, at, Files(Path("log"), Path("termination")), pid=7)


async def test_pages_of_ready_processes_are_read_and_one_without_a_response_is_no_failure() -> None:
    registry = CollectorRegistry()
    tokens = Counter("vllm:generation_tokens", "Tokens.", registry=registry)
    server = AdminServer("127.0.0.1:0", lambda: (True, {}), registry=registry)
    members = [member("a", server.port), member("b", 1), member("c", server.port, State.STARTING)]
    rates = Rates()
    async with aiohttp.ClientSession() as session:
        for now in (100.0, 102.0):
            await poll(rates, session, members, now)
            tokens.inc(50)
    server.close()
    assert rates.of("a-0") == Rate(0.0, 25.0)
    assert rates.of("b-0") == rates.of("c-0") == UNKNOWN


async def test_a_process_that_is_gone_is_forgotten() -> None:
    rates = Rates()
    for now in (100.0, 101.0):
        rates.note("a-0", 7, pod(1, 1), now)
    async with aiohttp.ClientSession() as session:
        await poll(rates, session, [], 102.0)
    assert rates.of("a-0") == UNKNOWN
