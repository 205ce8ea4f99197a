"""Runs a trace through gateways onto pods, in virtual time, and measures what came of it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from prometheus_client import CollectorRegistry
from tests.support.snapshots import take_snapshot

from autoglm import v1
from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.endpoint import Endpoint, EndpointView, Live, Phase, State
from autoglm.gateway.endpoints.kv_event_watch import Reader
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing import Router
from autoglm.gateway.routing.prefix_index import salt_of
from autoglm.inference.servicers.worker import message_of
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.prefix_hash import Prefix, of_token_ids
from autoglm.validation.request_info import Prompt
from benchmarks.fleet.pod import Job, Pod, Speed
from benchmarks.fleet.traces import Session, Tokens

REPORT_SECONDS = 0.05
_MODEL = "m"


class Gateway:
    """The routing of one gateway, with its own view of every pod."""

    def __init__(self, policy: RoutingPolicy, pods: Sequence[Pod], seed: int) -> None:
        self.router = Router(Metrics(CollectorRegistry()), Random(seed), policy)
        self.views = [_view(number) for number in range(len(pods))]
        self.number = {view.url: number for number, view in enumerate(self.views)}
        self.snapshot = take_snapshot(self.views)
        self._caches = {n: Cache(self, n, pod) for n, pod in enumerate(pods) if pod.feed}

    def hear(self, number: int, pod: Pod) -> None:
        self.views[number].live.take(pod.load())
        if cache := self._caches.get(number):
            cache.read()


class Cache:
    """A gateway's stream of a pod's KV-cache events."""

    def __init__(self, gateway: Gateway, number: int, pod: Pod) -> None:
        assert pod.feed is not None
        self._opened = pod.feed.subscribed()
        self._subscriber = self._opened.__enter__()
        prefixes = gateway.router.memory.prefixes
        self._reader = Reader(prefixes, gateway.views[number].url)

    def read(self) -> None:
        for change in self._subscriber.take():
            self._reader.read(message_of(change, self._reader.sequence + 1))


def _view(number: int) -> EndpointView:
    endpoint = Endpoint(f"grpc://10.0.{number // 250}.{number % 250}:50051", "pod", "h", 1)
    return EndpointView(endpoint, State(Phase.READY, models=(v1.Model(name=_MODEL),)), Live())


@dataclass(slots=True, eq=False)
class Chat:
    """A session on its way."""

    session: Session
    history: Tokens
    opening: int = 0
    turn: int = 0


@dataclass(slots=True)
class Result:
    """What came of a run. Seconds."""

    jobs: list[Job] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        return sum(j.cached for j in self.jobs) / sum(len(j.prompt) for j in self.jobs)

    @property
    def imbalance(self) -> float:
        """How much longer the busiest pod worked than the mean."""
        return max(self.busy) * len(self.busy) / sum(self.busy)

    @property
    def output_rate(self) -> float:
        begun = min(j.arrived for j in self.jobs)
        tokens = sum(len(j.output) for j in self.jobs)
        return tokens / (max(j.finished for j in self.jobs) - begun)

    @property
    def mean_latency(self) -> float:
        return sum(j.finished - j.arrived for j in self.jobs) / len(self.jobs)

    def first_token(self, share: float) -> float:
        times = sorted(j.first_token - j.arrived for j in self.jobs)
        return times[min(len(times) - 1, int(share * len(times)))]


class Simulation:
    """Pods report their load and their caches every `interval` seconds: all in the same moment, or
    one after the other.
    """

    def __init__(
        self,
        gateways: Sequence[Gateway],
        pods: Sequence[Pod],
        seed: int = 0,
        interval: float = REPORT_SECONDS,
        one_by_one: bool = False,
    ) -> None:
        self.gateways, self.pods = gateways, pods
        self._interval = interval
        numbers = range(len(pods))
        self._together = [[number] for number in numbers] if one_by_one else [numbers]
        self.result = Result()
        self.requested: Callable[[Gateway, GatewayRequest, Job], None]
        self.requested = lambda gateway, request, job: None
        self._rng = Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._stepping = [False] * len(pods)
        self._going: dict[Job, tuple[Gateway, EndpointView, Chat, int]] = {}
        self._left = 0

    def run(self, sessions: Sequence[Session]) -> Result:
        self._left = len(sessions)
        for session in sessions:
            chat = Chat(session, list(session.shared))
            self._at(session.starts, partial(self._request, chat))
        for turn, numbers in enumerate(self._together):
            begins = turn * self._interval / len(self._together)
            self._at(begins, partial(self._report, numbers))
        while self._events and self._left:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
        self.result.busy = [pod.busy_seconds for pod in self.pods]
        return self.result

    def _at(self, when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def _report(self, numbers: Sequence[int], now: float) -> None:
        for number in numbers:
            for gateway in self.gateways:
                gateway.hear(number, self.pods[number])
        self._at(now + self._interval, partial(self._report, numbers))

    def _request(self, chat: Chat, now: float) -> None:
        turn = chat.session.turns[chat.turn]
        prompt = chat.history + turn.said
        named = of_token_ids(prompt)
        chat.opening = chat.opening or hash((named.blocks, *prompt[-8:])) & (2**64 - 1)
        call = _call(prompt, Prefix(named.blocks, chat.opening, chat.turn > 0, named.size), now)
        gateway = self._rng.choice(self.gateways)
        job = Job(prompt, turn.output, now)
        self.requested(gateway, call, job)
        decision = gateway.router.route(call, gateway.snapshot, now)
        view, latency = decision.endpoint, gateway.router.memory.latency
        job.sending = latency.sent(view.url, decision.uncached_tokens or 0, now)
        view.live.in_flight += 1
        view.live.tokens += len(prompt)
        number = gateway.number[view.url]
        self._going[job] = (gateway, view, chat, number)
        assert call.info is not None
        salt = salt_of(call.principal.tenant, call.model)
        self.pods[number].take(job, call.info.prefix, salt)
        self._step(number, now)

    def _step(self, number: int, now: float) -> None:
        if self._stepping[number]:
            return
        seconds = self.pods[number].plan(now)
        if seconds:
            self._stepping[number] = True
            self._at(now + seconds, lambda then: self._stepped(number, then))

    def _stepped(self, number: int, now: float) -> None:
        self._stepping[number] = False
        begun, done = self.pods[number].finish(now)
        for job in begun:
            latency = self._going[job][0].router.memory.latency
            latency.first_chunk(job.sending, now, is_first_token=True)
        for job in done:
            self._finished(job, now)
        self._step(number, now)

    def _finished(self, job: Job, now: float) -> None:
        gateway, view, chat, _ = self._going.pop(job)
        gateway.router.memory.latency.ended(job.sending, now)
        view.live.in_flight -= 1
        view.live.tokens -= len(job.prompt)
        self.result.jobs.append(job)
        chat.history, chat.turn = job.prompt + job.output, chat.turn + 1
        if chat.turn == len(chat.session.turns):
            self._left -= 1
        else:
            self._at(
                now + chat.session.turns[chat.turn].pause, lambda then: self._request(chat, then)
            )


def _call(prompt: Tokens, prefix: Prefix, now: float) -> GatewayRequest:
    ask = RequestInfo(
        Operation.CHAT,
        _MODEL,
        streaming=True,
        prompts=(Prompt("prompt", 4 * len(prompt), len(prompt)),),
        prefix=prefix,
    )
    return GatewayRequest("grpc", "r", "t", b"", "id", now, now + 600, ask)


def fleet(
    size: int = 64, *, mixed: bool = False, small: bool = False, with_events: bool = False
) -> list[Pod]:
    """Equal pods; or, mixed, half of them with half the speed.

    `small` pods have a quarter of the cache, `with_events` ones send KV events.
    """
    whole = Speed()
    fast = replace(whole, kv_blocks=whole.kv_blocks // 4) if small else whole
    slow = replace(
        fast,
        step=2 * fast.step,
        sequence=2 * fast.sequence,
        prompt_token=2 * fast.prompt_token,
    )
    speeds = [slow if mixed and number % 2 else fast for number in range(size)]
    return [Pod(speed, with_events=with_events) for speed in speeds]
