"""One request inside the echo engine: its jobs, and their output that is not read yet.

Chunks that pile up because the reader is slow are merged, one for each completion, so a reader
never holds up the engine and memory stays bounded by `max_tokens`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from autoglm import v1
from autoglm.common.errors import AutoGLMError
from autoglm.simulator.completion import EchoCompletion, TokenOutput, logprob
from autoglm.simulator.prompts import EchoTask
from autoglm.simulator.scheduler import Job


@dataclass(slots=True, eq=False)
class SequenceState:
    """One completion of a request."""

    job: Job
    completion: EchoCompletion
    chunk: v1.GenerateChunk
    has_news: bool = False
    is_done: bool = False


@dataclass(slots=True, eq=False)
class EchoRequest:
    id: str
    task: EchoTask
    arrived: float
    sequences: list[SequenceState]
    news: asyncio.Event = field(default_factory=asyncio.Event)
    error: AutoGLMError | None = None
    first_token: float = 0.0
    last_token: float = 0.0

    @property
    def is_done(self) -> bool:
        return all(sequence.is_done for sequence in self.sequences)

    def add(self, sequence: SequenceState, piece: TokenOutput, now: float) -> None:
        """Appends `piece` to the output of `sequence`."""
        chunk = sequence.chunk
        chunk.text += piece.text
        chunk.token_ids.append(piece.token_id)
        if self.task.params.HasField("logprobs"):
            chunk.logprobs.append(logprob(piece.token_id, self.task.params.logprobs))
        self.first_token = self.first_token or now
        self.last_token = now
        if piece.finish_reason:
            self.finish(sequence, piece.finish_reason, piece.stop_reason)
        sequence.has_news = True
        self.news.set()

    def finish(
        self, sequence: SequenceState, reason: v1.FinishReason, stop_reason: str = ""
    ) -> None:
        sequence.chunk.finish_reason = reason
        sequence.chunk.stop_reason = stop_reason
        sequence.is_done = sequence.has_news = True
        self.news.set()

    def fail(self, error: AutoGLMError) -> None:
        self.error = error
        self.news.set()

    def take(self) -> list[v1.GenerateChunk]:
        """Return new output, one chunk a completion; the last of all with usage and timing."""
        self.news.clear()
        chunks = []
        for sequence in self.sequences:
            if sequence.has_news:
                chunks.append(sequence.chunk)
                sequence.chunk = v1.GenerateChunk(id=self.id, index=sequence.chunk.index)
                sequence.has_news = False
        if chunks and self.is_done:
            jobs = [sequence.job for sequence in self.sequences]
            usage = v1.Usage(
                prompt_tokens=len(self.task.prompt),
                completion_tokens=sum(len(job.ids) - job.prompt_tokens for job in jobs),
                cached_tokens=jobs[0].cached_tokens,
            )
            first = self.first_token or self.arrived
            admitted = next((job.admitted for job in jobs if job.admitted is not None), first)
            timing = v1.Timing(
                queue_seconds=admitted - self.arrived,
                prefill_seconds=max(0.0, first - admitted),
                decode_seconds=max(0.0, self.last_token - first),
            )
            chunks[-1].usage.CopyFrom(usage)
            chunks[-1].timing.CopyFrom(timing)
        return chunks


def new_request(
    request_id: str, task: EchoTask, now: float, hang_after: int | None, root: int = 0
) -> EchoRequest:
    """Return a request; only those with the same `root` share blocks. Raises ResumeImpossible."""
    sequences = []
    for index in range(task.n):
        job = Job(list(task.prompt), task.priority, hang_after, root)
        completion = EchoCompletion(task.output, task.params, task.max_tokens, index)
        sequence = SequenceState(job, completion, v1.GenerateChunk(id=request_id, index=index))
        if index in task.resumed:
            resumed = task.resumed[index]
            completion.skip(resumed.token_ids)
            job.ids.extend(resumed.token_ids)
            sequence.is_done = resumed.finished
        sequences.append(sequence)
    request = EchoRequest(request_id, task, now, sequences)
    if request.is_done:
        # The other pod had delivered all tokens before its stream broke, but not their usage.
        sequences[-1].has_news = True
        request.news.set()
    return request
