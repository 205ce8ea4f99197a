"""Our routing beside other routers', in real time: the traces of `routing`, sent to echo pods.

Eight echo pods count blocks as vLLM does and take as long for a token as is configured. Routers
get the same conversations over REST, in words of their own, so that none finds another's in the
caches. Hits are what the pods count: cached prompt tokens of each response's usage. Last comes a
trace on two real vLLM pods with the tiny GLM-4.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
from tests.support import processes
from tests.support.processes import Process

from autoglm.api.spec.traffic import RoutingPolicy
from benchmarks import rivals
from benchmarks.fleet.traces import TRACES, Session, Source, Tokens
from benchmarks.load import ROOT
from benchmarks.report import Report, Row

_PODS = 8
# Half as fast as the simulated fleet's pods; so an eighth of its pods get a sixteenth of its load.
_SCALE = 1 / 16
_SLOWER = 2.0
_POD = (
    *("--max-num-seqs", "16", "--max-model-len", "16384", "--echo-token-rate", "14"),
    *("--echo-prefill-rate", "2000", "--echo-kv-blocks", "6144"),
)
_MODEL = ROOT / "examples/tiny-glm/model"
_VLLM = ("--engine-arg", "enable_prompt_tokens_details=true")
_TRACES = ("chat", "shared prompts", "agents", "unique", "hot spot")
_OURS: tuple[RoutingPolicy, ...] = ("PrefixAffinity", "LeastRequests", "RoundRobin")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
_COLUMNS = (
    *("trace", "router", "prefix hit rate", "first token p50 ms", "p99 ms", "mean latency s"),
    *("output tokens/s", "busiest pod", "failed"),
)


def run(output: Path, *, quick: bool) -> None:
    rivals.install()
    report = Report("routing-rivals", f"{_PODS} echo pods, REST, the same traces for all", _COLUMNS)
    report.notes.append("busiest pod: how many more requests it had than the mean")
    with tempfile.TemporaryDirectory() as name:
        logs = Path(name)
        pods = [processes.echo_pod(logs, f"echo-{n}", *_POD) for n in range(_PODS)]
        with processes.running(*pods):
            stage = _Stage(logs, pods, "echo")
            for trace in _TRACES[1:2] if quick else _TRACES:
                report.rows.extend(stage.rows(trace, TRACES[trace](Source(1), _SCALE)))
        pods = [processes.vllm_pod(logs, _MODEL, f"vllm-{n}", *_VLLM) for n in range(2)]
        with processes.running(*pods):
            stage = _Stage(logs, pods, "tiny-glm")
            report.rows.extend(stage.rows("vLLM, chat", vllm_chat(Source(1), 8 if quick else 60)))
    report.publish(output)


def vllm_chat(source: Source, count: int) -> list[Session]:
    """Conversations of five turns that fit into the tiny model's context."""
    system = source.text(96)
    return [
        Session(at, system, tuple(source.turn(24, 24, 0.5) for _ in range(5)))
        for at in source.arrivals(4.0, count)
    ]


class _Stage:
    """Pods that serve one model; each router is started in front of them in turn."""

    def __init__(self, logs: Path, pods: Sequence[Process], model: str) -> None:
        self._logs = logs
        self._pods = pods
        self._model = model

    def rows(self, trace: str, sessions: Sequence[Session]) -> Iterator[Row]:
        for policy in _OURS:
            with self._gateway(policy) as address:
                yield self._row(trace, f"ours, {policy}", address, sessions)
        for rival in rivals.CACHE_AWARE:
            workers = [pod.http_address for pod in self._pods]
            log = self._logs / f"{rival.command}.log"
            with rivals.started(rival, workers, log) as (address, _):
                yield self._row(trace, rival.name, address, sessions)

    def _row(self, trace: str, router: str, address: str, sessions: Sequence[Session]) -> Row:
        print(f"{trace}: {router} ...", file=sys.stderr, flush=True)
        before = [_served(pod) for pod in self._pods]
        clients = _Clients(address, self._model, f"{router} {trace}")
        result = asyncio.run(clients.run(sessions))
        shares = [_served(pod) - had for pod, had in zip(self._pods, before, strict=True)]
        busiest = max(shares) * len(shares) / max(1, sum(shares))
        return {"trace": trace, "router": router, **result.row(), "busiest pod": busiest}

    @contextmanager
    def _gateway(self, policy: RoutingPolicy) -> Iterator[str]:
        gateway = processes.gateway(self._logs, self._pods, "--routing-policy", policy)
        with processes.running(gateway):
            processes.eventually(partial(_knows, gateway, len(self._pods)))
            yield gateway.http_address


def _knows(gateway: Process, pods: int) -> bool:
    return gateway.ready_endpoints() == pods


def _served(pod: Process) -> float:
    """Requests that the pod has ended."""
    return pod.metric("autoglm_inference_requests_total")


@dataclass(slots=True)
class _Result:
    first: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    failed: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        first = sorted(self.first)
        return {
            "prefix hit rate": self.cached_tokens / self.prompt_tokens,
            "first token p50 ms": 1e3 * statistics.median(first),
            "p99 ms": 1e3 * first[min(len(first) - 1, int(0.99 * len(first)))],
            "mean latency s": statistics.mean(self.latency),
            "output tokens/s": self.output_tokens / self.seconds,
            "failed": self.failed,
        }


class _Clients:
    """Sends sessions to one address, each at its time; `salt` makes the words its own."""

    def __init__(self, address: str, model: str, salt: str) -> None:
        self._model = model
        self._url = f"http://{address}/v1/completions"
        self._salt = zlib.crc32(salt.encode())
        self._result = _Result()

    async def run(self, sessions: Sequence[Session]) -> _Result:
        connector = aiohttp.TCPConnector(limit=0)
        begun = time.perf_counter()
        async with aiohttp.ClientSession(connector=connector) as self._http:
            await asyncio.gather(*(self._converse(session) for session in sessions))
        self._result.seconds = time.perf_counter() - begun
        return self._result

    async def _converse(self, session: Session) -> None:
        await asyncio.sleep(session.starts * _SLOWER)
        history = self._text(session.shared)
        for turn in session.turns:
            await asyncio.sleep(turn.pause * _SLOWER)
            history += self._text(turn.said)
            try:
                history += await self._request(history, len(turn.output))
            except (aiohttp.ClientError, TimeoutError):
                self._result.failed += 1
                return

    async def _request(self, prompt: str, tokens: int) -> str:
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begun, first, said = time.perf_counter(), 0.0, ""
        async with self._http.post(self._url, json=body, raise_for_status=True) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                first = first or time.perf_counter() - begun
                said += "".join(choice["text"] for choice in event["choices"])
                if event.get("usage"):
                    self._count(event["usage"])
        self._result.first.append(first)
        self._result.latency.append(time.perf_counter() - begun)
        return said

    def _count(self, usage: dict[str, object]) -> None:
        details = usage["prompt_tokens_details"] or {}
        assert isinstance(details, dict)
        self._result.prompt_tokens += int(str(usage["prompt_tokens"]))
        self._result.output_tokens += int(str(usage["completion_tokens"]))
        self._result.cached_tokens += details.get("cached_tokens") or 0

    def _text(self, tokens: Tokens) -> str:
        """Words that are one token each to the echo engine: a space and two letters."""
        salted = (token ^ self._salt for token in tokens)
        return "".join(f" {_LETTERS[t >> 6 & 63]}{_LETTERS[t & 63]}" for t in salted)
