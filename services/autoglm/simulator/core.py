"""Drives the echo scheduler: one task steps it, requests read the output of their jobs.

The scheduler decides, this waits: until the next token is due, or until something changes. A reader
that goes away takes its jobs and their cache blocks with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from xxhash import xxh3_64_intdigest

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import EngineLoad
from autoglm.inference.kv import block_naming, cache_salt
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.kv.ledger import ends
from autoglm.inference.settings import EchoSettings, Fault, fault_in
from autoglm.simulator import tokenizer
from autoglm.simulator.blocks import BLOCK_SIZE, BlockPool, block_hashes
from autoglm.simulator.prompts import EchoTask
from autoglm.simulator.request import EchoRequest, SequenceState, new_request
from autoglm.simulator.scheduler import Job, Scheduler

# Loops fire timers up to a clock tick early; what is due within this is due now.
_CLOCK_SECONDS = 1e-6


class EchoCore:
    """Must be made on a running event loop, whose clock it goes by."""

    def __init__(self, settings: EchoSettings) -> None:
        self._settings = settings
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self.kv_feed = KvFeed(settings.kv_blocks)
        pool = BlockPool(settings.kv_blocks, self.kv_feed.ledger)
        self._scheduler = Scheduler(settings.rates, settings.max_num_seqs, pool)
        self._requests: dict[EchoRequest, Fault | None] = {}
        self._sequences: dict[Job, tuple[EchoRequest, SequenceState]] = {}
        self._served = 0
        self.generated_tokens = 0
        self._work = asyncio.Event()
        self._cause_of_death = ""
        self._died = asyncio.Event()
        self._by_id: dict[str, EchoRequest] = {}
        self._driver = asyncio.create_task(self._drive())

    @property
    def capacity(self) -> int:
        """Return the most tokens of prompt and completion together."""
        return min(self._settings.max_model_len, self._settings.kv_blocks * BLOCK_SIZE)

    def load(self) -> EngineLoad:
        return EngineLoad(
            running=len(self._scheduler.running),
            waiting=self._scheduler.waiting,
            kv_cache_usage=self._scheduler.pool.usage,
            tokens_in_flight=self._scheduler.tokens_in_flight,
            max_num_seqs=self._settings.max_num_seqs,
            num_kv_blocks=self._settings.kv_blocks,
            kv_block_size=BLOCK_SIZE,
        )

    async def run(self, task: EchoTask, request_id: str) -> AsyncGenerator[v1.GenerateChunk, None]:
        """Yield chunks as tokens appear. Closing the iterator ends the request."""
        request = self._admit(task, request_id)
        try:
            while not request.is_done or request.news.is_set():
                await request.news.wait()
                for chunk in request.take():
                    yield chunk
                if request.error:
                    raise request.error
        finally:
            self._release(request)
            self._requests.pop(request, None)
            # A client may have given its id to another request since.
            if self._by_id.get(request.id) is request:
                del self._by_id[request.id]

    def is_running(self, request_id: str) -> bool:
        request = self._by_id.get(request_id)
        return request is not None and not request.is_done

    def abort(self, request_ids: Sequence[str]) -> Sequence[str]:
        wanted = set(request_ids)
        ended = [request for request in self._requests if request.id in wanted]
        for request in ended:
            self._release(request)
            for sequence in request.sequences:
                if not sequence.is_done:
                    request.finish(sequence, v1.FINISH_REASON_ABORT)
        return sorted({request.id for request in ended})

    async def wait_dead(self) -> str:
        await self._died.wait()
        return self._cause_of_death

    def die(self, why: str) -> None:
        """End all requests with an error, later ones included."""
        self._cause_of_death = self._cause_of_death or why
        self._died.set()
        self._driver.cancel()
        for request in self._requests:
            request.fail(errors.EngineDead(why))

    def _admit(self, task: EchoTask, request_id: str) -> EchoRequest:
        self._served += 1
        fault = self._settings.fault
        if fault and fault.kind == "die-after-requests" and self._served > fault.count:
            self.die(f"the echo engine is configured to die after {fault.count} requests")
        if self._died.is_set():
            raise errors.EngineDead(self._cause_of_death)
        fault = fault_in(tokenizer.decode(task.prompt)) or fault
        hang_after = fault.count if fault and fault.kind == "hang" else None
        salt = cache_salt.effective()
        root = xxh3_64_intdigest(salt.encode()) if salt else 0
        request = new_request(request_id, task, self._now(), hang_after, root)
        if (naming := block_naming.take()) is not None:
            blocks = block_hashes(task.prompt, root)
            self.kv_feed.ledger.requested(
                ends(naming.prefix, naming.salt, len(task.prompt), blocks, BLOCK_SIZE)
            )
        self._requests[request] = fault
        self._by_id[request_id] = request
        for sequence in request.sequences:
            if not sequence.is_done:
                self._sequences[sequence.job] = (request, sequence)
                self._scheduler.submit(sequence.job)
        self._work.set()
        return request

    def _release(self, request: EchoRequest) -> None:
        for sequence in request.sequences:
            if self._sequences.pop(sequence.job, None):
                self._scheduler.remove(sequence.job)
        self._work.set()

    async def _drive(self) -> None:
        while True:
            self._work.clear()
            now = self._now()
            self._scheduler.admit(now)
            for job in self._scheduler.due(now + _CLOCK_SECONDS):
                # A request that failed in this step takes its other jobs with it.
                if job in self._sequences:
                    self._advance(job, now)
            due = self._scheduler.wake_at()
            if due is None:
                await self._work.wait()
            elif due <= self._now() + _CLOCK_SECONDS:
                await asyncio.sleep(0)
            else:
                timer = asyncio.get_running_loop().call_at(due, self._work.set)
                try:
                    await self._work.wait()
                finally:
                    timer.cancel()

    def _advance(self, job: Job, now: float) -> None:
        request, sequence = self._sequences[job]
        piece = sequence.completion.step()
        self._scheduler.append(job, piece.token_id)
        self.generated_tokens += 1
        request.add(sequence, piece, now)
        if sequence.is_done:
            del self._sequences[job]
            self._scheduler.remove(job)
            # For the job that waits for its slot; nothing else may be due.
            self._work.set()
            return
        fault, generated = self._requests[request], len(job.ids) - job.prompt_tokens
        if fault is not None and fault.kind == "after-tokens" and generated >= fault.count:
            self._release(request)
            request.fail(errors.Internal("the echo engine is configured to fail"))
