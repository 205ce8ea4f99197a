"""A simulated pod: vLLM's continuous batching, chunked prefill and prefix cache, in virtual time.

Blocks are the echo engine's, which follow vLLM's arithmetic. One step of the engine computes up to
a budget of prompt tokens and one token of every sequence that is decoding. No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from autoglm.gateway.endpoints.endpoint import Load
from autoglm.gateway.routing.latency import Sending
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.kv.ledger import ends
from autoglm.simulator.blocks import BLOCK_SIZE, BlockPool, Key, block_hashes
from autoglm.validation.prefix_hash import Prefix


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds; the defaults are those of a 70-billion model on older accelerators."""

    step: float = 0.030
    sequence: float = 0.001
    """Of a step, for each sequence in it."""
    prompt_token: float = 0.00025
    max_num_seqs: int = 16
    kv_blocks: int = 6144
    step_tokens: int = 2048
    """Most prompt tokens of one step."""


@dataclass(slots=True, eq=False)
class Job:
    """One request on a pod. Token ids; `output` is what it will say."""

    prompt: list[int]
    output: list[int]
    arrived: float
    keys: list[Key] = field(default_factory=list)
    cached: int = 0
    to_compute: int = 0
    said: int = 0
    first_token: float = 0.0
    sending: Sending = field(default_factory=lambda: Sending("", 0, 0, 0.0))
    finished: float = 0.0


class Pod:
    """`step` is called again after as many seconds as it returns; 0 says that nothing runs.

    One that is `with_events` has a feed of its KV events.
    """

    def __init__(self, speed: Speed, *, with_events: bool = False) -> None:
        self.speed = speed
        self.feed = KvFeed(speed.kv_blocks) if with_events else None
        self.blocks = BlockPool(speed.kv_blocks, self.feed.ledger if self.feed else None)
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.busy_seconds = 0.0

    def load(self) -> Load:
        jobs = (*self.running, *self.waiting)
        return Load(
            running=len(self.running),
            waiting=len(self.waiting),
            kv_cache_usage=self.blocks.usage,
            tokens_in_flight=sum(len(job.prompt) + job.said for job in jobs),
            max_num_seqs=self.speed.max_num_seqs,
            kv_tokens=self.speed.kv_blocks * BLOCK_SIZE,
        )

    def take(self, job: Job, prefix: Prefix, salt: int) -> None:
        """A request has come, with the gateway's names of its prompt."""
        if self.feed is not None:
            blocks = block_hashes(job.prompt)
            self.feed.ledger.requested(ends(prefix, salt, len(job.prompt), blocks, BLOCK_SIZE))
        self.waiting.append(job)

    def has_cached(self, name: int) -> bool:
        return self.blocks.is_cached(name)

    def plan(self, now: float) -> float:
        """Admit what fits; how long the step takes that begins now, 0 for none."""
        self._admit()
        if not self.running:
            return 0.0
        budget, prompt_tokens, decoding = self.speed.step_tokens, 0, 0
        for job in self.running:
            if job.to_compute:
                prompt_tokens += min(job.to_compute, budget - prompt_tokens)
            else:
                decoding += 1
        speed = self.speed
        seconds = speed.step + speed.sequence * decoding + speed.prompt_token * prompt_tokens
        self.busy_seconds += seconds
        return seconds

    def finish(self, now: float) -> tuple[list[Job], list[Job]]:
        """The step is over; the jobs that got their first token and those that ended with it."""
        budget = self.speed.step_tokens
        begun: list[Job] = []
        done: list[Job] = []
        for job in self.running:
            if job.to_compute:
                computed = min(job.to_compute, budget)
                budget -= computed
                job.to_compute -= computed
                if job.to_compute:
                    continue
                job.first_token = now
                begun.append(job)
            job.said += 1
            if job.said >= len(job.output):
                job.finished = now
                done.append(job)
        for job in done:
            self._end(job)
        return begun, done

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.speed.max_num_seqs:
            job = self.waiting[0]
            taken = self.blocks.take(job.prompt)
            if taken is None:
                return
            job.keys, job.cached = taken
            if not self.blocks.grow(job.keys, len(job.prompt) + len(job.output)):
                self.blocks.release(job.keys)
                return
            job.to_compute = len(job.prompt) - job.cached
            self.running.append(self.waiting.popleft())

    def _end(self, job: Job) -> None:
        self.running.remove(job)
        self.blocks.release(job.keys)
        # Generated tokens are cached as well, under the names that the next turn will have.
        taken = self.blocks.take(job.prompt + job.output)
        if taken:
            self.blocks.release(taken[0])
