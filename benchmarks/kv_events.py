"""What KV-cache events cost a pod: the same load on a vLLM pod with events and one without.

Both are ready and are measured in turn, round after round. The one with events has a subscriber,
and its requests come with a gateway's salt, so that every prompt is named. `unique prompts` fill
the cache with new blocks and evict old ones; `long responses` is decoding behind a short prompt.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import grpc
import psutil
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import rpc
from autoglm.v1.inference_pb2_grpc import InferenceStub
from autoglm.v1.worker_pb2_grpc import WorkerStub
from benchmarks.pod_overhead import MODEL, rotated
from benchmarks.report import Report, median_spread

_CLIENTS = 8
_COLUMNS = ("load", "pod", "tokens/s", "spread", "of quiet", "CPU ms a request", "CPU of quiet")


@dataclass(frozen=True, slots=True)
class _Load:
    words: int
    tokens: int
    requests: int


_LOADS = {"unique prompts": _Load(300, 8, 64), "long responses": _Load(8, 200, 24)}


def run(output: Path, *, quick: bool) -> None:
    report = Report("kv-events", "vLLM pods with and without KV-cache events", _COLUMNS)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        pods = {
            "quiet": processes.vllm_pod(directory, MODEL, "quiet", "--no-kv-events", compiled=True),
            "with_events": processes.vllm_pod(directory, MODEL, "with_events", compiled=True),
        }
        with processes.running(*pods.values()):
            for load, work in _LOADS.items():
                rounds = asyncio.run(_rounds(pods, work, 3 if quick else 12))
                report.rows.extend(_rows(load, rounds))
    report.publish(output)


def _rows(load: str, rounds: dict[str, list[tuple[float, float]]]) -> list[dict[str, str | float]]:
    rows: list[dict[str, str | float]] = []
    for pod, figures in rounds.items():
        pairs = list(zip(figures, rounds["quiet"], strict=True))
        rate, spread = median_spread([rate for rate, _ in figures])
        rows.append(
            {
                "load": load,
                "pod": pod,
                "tokens/s": rate,
                "spread": spread,
                "of quiet": f"{median(own[0] / quiet[0] for own, quiet in pairs):.3f}",
                "CPU ms a request": median(cpu for _, cpu in figures),
                "CPU of quiet": f"{median(own[1] / quiet[1] for own, quiet in pairs):.3f}",
            }
        )
    return rows


async def _rounds(
    pods: dict[str, Process], work: _Load, count: int
) -> dict[str, list[tuple[float, float]]]:
    """For each pod and round, output tokens a second and milliseconds of CPU a request."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in pods}
    async with rpc.channel(pods["with_events"].grpc_address) as channel:
        following = asyncio.create_task(_follow(channel))
        # The first round warms up.
        for number in range(count + 1):
            for name in rotated(list(pods), number):
                figures = await _measure(pods[name], work, seed=number)
                if number:
                    found[name].append(figures)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    return found


async def _follow(channel: grpc.aio.Channel) -> None:
    async for _ in WorkerStub(channel).SubscribeKvEvents(v1.SubscribeKvEventsRequest()):
        pass


async def _measure(pod: Process, work: _Load, seed: int) -> tuple[float, float]:
    rng, left = Random(seed), list(range(work.requests))
    texts = [_words(rng, work.words) for _ in left]
    async with rpc.channel(pod.grpc_address) as channel:
        stub = InferenceStub(channel)

        async def client() -> None:
            while left:
                await _request(stub, texts[left.pop()], work.tokens)

        before, begun = _cpu_seconds(pod), time.perf_counter()
        await asyncio.gather(*(client() for _ in range(_CLIENTS)))
        seconds = time.perf_counter() - begun
        cpu = _cpu_seconds(pod) - before
    return work.requests * work.tokens / seconds, 1e3 * cpu / work.requests


async def _request(stub: Any, text: str, tokens: int) -> None:
    params = v1.SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    request = v1.GenerateRequest(model="tiny-glm", text=text, sampling_params=params)
    chunks = stub.GenerateStream(
        request,
        timeout=120,
        metadata=((rpc.PREFIX_SALT, f"{7:016x}"),),
    )
    async for _ in chunks:
        pass


def _cpu_seconds(pod: Process) -> float:
    """Of the pod's process and its engine's."""
    process = psutil.Process(pod.pid)
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def _words(rng: Random, count: int) -> str:
    return " ".join(f"{rng.getrandbits(16):x}" for _ in range(count))
