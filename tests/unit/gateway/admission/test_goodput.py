"""What the queue makes of more work than two pods can do, by simulation: virtual time, no noise."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from random import Random

import pytest

from autoglm.gateway.admission.capacity import Capacity
from autoglm.gateway.admission.lane import State, Waiter
from autoglm.gateway.admission.queue import Queue, Verdict

PODS, BATCH, SPARE = 2, 32, 1
PREFILL_SECONDS, TOKENS_PER_SECOND = 0.03, 25.0
SHORTEST, LONGEST = 20, 80
DEADLINE_SECONDS = 10.0
SECONDS = 60.0
CAPACITY = PODS * BATCH / (PREFILL_SECONDS + (SHORTEST + LONGEST) / 2 / TOKENS_PER_SECOND)


@dataclass
class Pod:
    running: int = 0
    waiting: deque[Waiter] = field(default_factory=deque)


@dataclass
class Job:
    arrived: float
    tokens: int
    pod: Pod | None = None
    is_running: bool = False


class Fleet:
    """Pods that decode at one speed; requests end by themselves or at their deadline."""

    def __init__(self) -> None:
        self.queue = Queue("glm")
        self.queue.resize(Capacity(PODS * (BATCH + SPARE)), 0.0)
        self.pods = [Pod() for _ in range(PODS)]
        self.jobs: dict[Waiter, Job] = {}
        self.ends: Counter[str] = Counter()
        self.tokens = 0
        """Of responses in time."""
        self.latencies: dict[str, list[float]] = {}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._rng = Random(1)

    def run(self, rates: dict[str, float]) -> Fleet:
        for tenant, rate in rates.items():
            self._at(0.0, partial(self._arrive, tenant, rate))
        self._at(0.0, self._tick)
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)
        return self

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _tick(self, now: float) -> None:
        self._carry_out(self.queue.expire(now), now)
        if now < SECONDS + 2 * DEADLINE_SECONDS:
            self._at(now + 0.05, self._tick)

    def _arrive(self, tenant: str, rate: float, now: float) -> None:
        tokens = self._rng.randint(SHORTEST, LONGEST)
        waiter = Waiter(tenant, tokens + self._rng.randint(40, 80), 1, now + DEADLINE_SECONDS)
        self.jobs[waiter] = Job(now, tokens)
        self._at(waiter.deadline, partial(self._cut, waiter))
        self._carry_out(self.queue.arrive(waiter, now), now)
        if now + 1 / rate < SECONDS:
            self._at(now + 1 / rate, partial(self._arrive, tenant, rate))

    def _carry_out(self, verdicts: list[Verdict], now: float) -> None:
        for verdict in verdicts:
            if verdict.error is not None:
                self.ends[type(verdict.error).__name__] += 1
                del self.jobs[verdict.waiter]
                continue
            pod = min(self.pods, key=lambda pod: pod.running + len(pod.waiting))
            self.jobs[verdict.waiter].pod = pod
            pod.waiting.append(verdict.waiter)
            self._fill(pod, now)

    def _fill(self, pod: Pod, now: float) -> None:
        while pod.waiting and pod.running < BATCH:
            waiter = pod.waiting.popleft()
            job = self.jobs[waiter]
            pod.running, job.is_running = pod.running + 1, True
            end = now + PREFILL_SECONDS + job.tokens / TOKENS_PER_SECOND
            self._at(end, partial(self._finish, waiter))

    def _finish(self, waiter: Waiter, now: float) -> None:
        if (job := self.jobs.get(waiter)) is not None:
            self.ends["in time"] += 1
            self.tokens += job.tokens
            self.latencies.setdefault(waiter.tenant, []).append(now - job.arrived)
            self._leave(waiter, job, now)

    def _cut(self, waiter: Waiter, now: float) -> None:
        job = self.jobs.get(waiter)
        if job is not None and waiter.state is State.ADMITTED:
            self.ends["wasted"] += 1
            self._leave(waiter, job, now)

    def _leave(self, waiter: Waiter, job: Job, now: float) -> None:
        assert job.pod is not None
        if job.is_running:
            job.pod.running -= 1
        else:
            job.pod.waiting.remove(waiter)
        del self.jobs[waiter]
        self._fill(job.pod, now)
        self._carry_out(self.queue.leave(waiter, now), now)


@cache
def at(times: float) -> Fleet:
    return Fleet().run({"a": times * CAPACITY})


@pytest.mark.parametrize("times", [2.0, 5.0, 10.0])
def test_goodput_stays_near_that_of_full_load_however_much_is_offered(times: float) -> None:
    assert at(times).tokens >= 0.95 * at(1.0).tokens


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0, 5.0, 10.0])
def test_few_places_are_wasted_on_responses_that_come_too_late(times: float) -> None:
    ends = at(times).ends
    assert ends["wasted"] <= 0.05 * ends["in time"]


def p99(fleet: Fleet, tenant: str) -> float:
    times = sorted(fleet.latencies[tenant])
    return times[math.ceil(0.99 * len(times)) - 1]


@pytest.mark.parametrize("times", [2.0, 5.0])
def test_light_tenant_has_its_responses_as_soon_beside_a_flood(times: float) -> None:
    quiet = Fleet().run({"light": 2.0})
    beside = Fleet().run({"flood": times * CAPACITY, "light": 2.0})
    assert len(beside.latencies["light"]) == len(quiet.latencies["light"])
    assert p99(beside, "light") <= 1.5 * p99(quiet, "light")
