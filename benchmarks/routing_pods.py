"""Prefix hits on real pods: conversations through real gateways onto two vLLM pods, by policy.

The tiny GLM-4 with vLLM's prefix caching. Hits are what vLLM counts: cached prompt tokens of each
response's usage. Every policy gets texts of its own, so that none finds another's in the caches.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import rpc
from autoglm.v1.inference_pb2_grpc import InferenceStub
from benchmarks import load
from benchmarks.report import Report

_MODEL = load.ROOT / "examples/tiny-glm/model"
_TURNS, _ANSWER_TOKENS = 5, 24
_RUNS = {
    "RoundRobin": ("RoundRobin", 1),
    "LeastLoaded": ("LeastLoaded", 1),
    "LatencyAware": ("LatencyAware", 1),
    "PrefixAffinity": ("PrefixAffinity", 1),
    "PrefixAffinity, two gateways": ("PrefixAffinity", 2),
}
# On pods with KV events; those above are on pods without.
_TELLING_RUNS = {
    "LatencyAware, events": ("LatencyAware", 1),
    "PrefixAffinity, events": ("PrefixAffinity", 1),
    "PrefixAffinity, events, two gateways": ("PrefixAffinity", 2),
}
_COLUMNS = ("routing", "prefix hit rate", "first chunk p50 ms", "p99 ms", "requests/s")


def run(output: Path, *, quick: bool) -> None:
    report = Report("routing-pods", "two vLLM pods, conversations of five turns", _COLUMNS)
    with tempfile.TemporaryDirectory() as name:
        for runs, flags in ((_RUNS, ["--no-kv-events"]), (_TELLING_RUNS, [])):
            directory = Path(name)
            pods = [processes.vllm_pod(directory, _MODEL, f"vllm-{n}", *flags) for n in range(2)]
            with processes.running(*pods):
                for routing, (policy, count) in runs.items():
                    gateways = [_gateway(directory, pods, policy, n) for n in range(count)]
                    talk = _Talk(routing, 12 if quick else 48)
                    report.rows.append(_measured(gateways, talk, len(pods)))
    report.publish(output)


def _measured(gateways: Sequence[Process], talk: _Talk, pods: int) -> dict[str, str | float]:
    with processes.running(*gateways):
        for gateway in gateways:
            processes.eventually(partial(_knows, gateway, pods))
        return asyncio.run(talk.measure([gateway.grpc_address for gateway in gateways]))


def _gateway(directory: Path, pods: Sequence[Process], policy: str, number: int) -> Process:
    flag = ("--routing-policy", policy)
    gateway = processes.gateway(directory, pods, *flag)
    return Process(f"gateway-{number}", gateway.arguments, directory / f"gateway-{number}.log")


def _knows(gateway: Process, pods: int) -> bool:
    return gateway.ready_endpoints() == pods


class _Talk:
    """Conversations of one policy, six at a time."""

    def __init__(self, routing: str, conversations: int) -> None:
        self._routing = routing
        self._conversations = conversations
        self._rng = Random(routing)
        self._system = f"{routing}. " + self._words(60)
        self._usages: list[v1.Usage] = []
        self._times: list[float] = []
        self._slots = asyncio.Semaphore(6)

    async def measure(self, addresses: Sequence[str]) -> dict[str, str | float]:
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(rpc.channel(a)) for a in addresses]
            stubs = [InferenceStub(channel) for channel in channels]
            begun = time.perf_counter()
            await asyncio.gather(*(self._converse(stubs) for _ in range(self._conversations)))
            seconds = time.perf_counter() - begun
        times = sorted(self._times)
        prompt = sum(usage.prompt_tokens for usage in self._usages)
        return {
            "routing": self._routing,
            "prefix hit rate": sum(usage.cached_tokens for usage in self._usages) / prompt,
            "first chunk p50 ms": 1e3 * statistics.median(times),
            "p99 ms": 1e3 * times[int(0.99 * len(times))],
            "requests/s": len(times) / seconds,
        }

    async def _converse(self, stubs: Sequence[InferenceStub]) -> None:
        messages = [v1.ChatMessage(role="system", content=self._system)]
        async with self._slots:
            for _ in range(_TURNS):
                messages.append(v1.ChatMessage(role="user", content=self._words(15)))
                text = await self._request(self._rng.choice(stubs), messages)
                messages.append(v1.ChatMessage(role="assistant", content=text))

    async def _request(self, stub: Any, messages: Sequence[v1.ChatMessage]) -> str:
        params = v1.SamplingParams(max_tokens=_ANSWER_TOKENS, temperature=0)
        request = v1.ChatRequest(model="tiny-glm", messages=messages, sampling_params=params)
        begun, said, first = time.perf_counter(), "", 0.0
        async for chunk in stub.ChatStream(request, timeout=60):
            first = first or time.perf_counter() - begun
            said += chunk.delta.content
            if chunk.HasField("usage"):
                self._usages.append(chunk.usage)
        self._times.append(first)
        return said

    def _words(self, count: int) -> str:
        return " ".join(f"{self._rng.getrandbits(24):x}" for _ in range(count))
