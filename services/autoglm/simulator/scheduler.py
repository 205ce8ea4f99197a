"""Decides which sequence gets its next token when, and with which cache blocks.

Continuous batching in miniature: first come first served (by priority) up to `max_num_seqs` and
the block budget, prompts prefilled at a rate, then one token at a time at a rate. A sequence that
finds no free block for its next token sends the latest comer back to the queue. Pure: the clock
is passed in and nothing waits. Called by `autoglm.simulator.engine`.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from autoglm.inference.settings import Rates
from autoglm.simulator.blocks import BLOCK_SIZE, BlockPool, Key


@dataclass(slots=True, eq=False)
class Job:
    """One sequence on its way; `ids` are its prompt and what was generated so far."""

    ids: list[int]
    priority: int = 0
    hang_after: int | None = None
    """Give no more tokens after this many, but keep slot and blocks."""
    root: int = 0
    """The parent of its first block: only sequences with the same root share blocks."""
    prompt_tokens: int = field(init=False)
    keys: list[Key] = field(default_factory=list)
    cached_tokens: int = 0
    admitted: float | None = None
    next_token: float = 0.0

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.ids)

    @property
    def is_hanging(self) -> bool:
        return self.hang_after is not None and len(self.ids) - self.prompt_tokens >= self.hang_after


class Scheduler:
    """`capacity` tokens are the most that one sequence may grow to; the engine sees to that."""

    def __init__(self, rates: Rates, max_num_seqs: int, pool: BlockPool) -> None:
        self.rates = rates
        self.max_num_seqs = max_num_seqs
        self.pool = pool
        self.running: dict[Job, None] = {}
        self._waiting: list[tuple[int, int, Job]] = []
        self._order = itertools.count(1)

    @property
    def capacity(self) -> int:
        return self.pool.size * BLOCK_SIZE

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def tokens_in_flight(self) -> int:
        waiting = (job for _, _, job in self._waiting)
        return sum(len(job.ids) for job in itertools.chain(self.running, waiting))

    def submit(self, job: Job) -> None:
        heapq.heappush(self._waiting, (job.priority, next(self._order), job))

    def remove(self, job: Job) -> None:
        """Remove a job that has ended, for any reason. Its full blocks stay cached."""
        if job in self.running:
            del self.running[job]
            self.pool.release(job.keys)
        else:
            self._waiting = [w for w in self._waiting if w[2] is not job]
            heapq.heapify(self._waiting)

    def admit(self, now: float) -> None:
        """Move as many jobs from the queue to work as slots and blocks allow."""
        while self._waiting and len(self.running) < self.max_num_seqs:
            job = self._waiting[0][2]
            taken = self.pool.take(job.ids, job.root)
            if taken is None:
                return
            heapq.heappop(self._waiting)
            job.keys, cached = taken
            if job.admitted is None:
                job.admitted = now
                job.cached_tokens = cached
            job.next_token = now + self.rates.prefill_seconds(len(job.ids) - cached)
            self.running[job] = None

    def due(self, now: float) -> list[Job]:
        """Return the jobs whose next token is due, each with room for it."""
        ready = [job for job in self.running if job.next_token <= now and not job.is_hanging]
        return [job for job in ready if job in self.running and self._has_room(job)]

    def append(self, job: Job, token_id: int) -> None:
        """Append the token of `job`; its next one is due by the rate, without drift."""
        job.ids.append(token_id)
        job.next_token += self.rates.token_seconds
        if len(job.ids) % BLOCK_SIZE == 0:
            self.pool.fill(job.keys, job.ids, job.root)

    def wake_at(self) -> float | None:
        """Return when the next token is due; None when none will be by itself."""
        return min((job.next_token for job in self.running if not job.is_hanging), default=None)

    def _has_room(self, job: Job) -> bool:
        while not self.pool.grow(job.keys, len(job.ids) + 1):
            victim = next(reversed(self.running))
            del self.running[victim]
            self.pool.release(victim.keys)
            # Before all who wait: negative numbers are older than any newcomer's.
            heapq.heappush(self._waiting, (victim.priority, -next(self._order), victim))
            if victim is job:
                return False
        return True
