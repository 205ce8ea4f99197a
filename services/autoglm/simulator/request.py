"""One request inside the echo engine: its jobs, and their output that is not read yet.

Chunks that pile up because the reader is slow are merged, one for each completion, so a reader
never holds up the engine and memory stays bounded by `max_tokens`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from autoglm import v1
from autoglm.common.errors import AutoGLMError
from autoglm.simulator.completion import Completion, Piece, logprob
from autoglm.simulator.prompts import Task
from autoglm.simulator.scheduler import Job


@dataclass(slots=True, eq=False)
class Line:
    """One completion of a request."""

    job: Job
    completion: Completion
    chunk: v1.GenerateChunk
    has_news: bool = False
    is_done: bool = False


@dataclass(slots=True, eq=False)
class Request:
    id: str
    task: Task
    arrived: float
    lines: list[Line]
    news: asyncio.Event = field(default_factory=asyncio.Event)
    error: AutoGLMError | None = None
    first_token: float = 0.0
    last_token: float = 0.0

    @property
    def is_done(self) -> bool:
        return all(line.is_done for line in self.lines)

    def add(self, line: Line, piece: Piece, now: float) -> None:
        """Append `piece` to the output of `line`."""
        chunk = line.chunk
        chunk.text += piece.text
        chunk.token_ids.append(piece.token_id)
        if self.task.params.HasField("logprobs"):
            chunk.logprobs.append(logprob(piece.token_id, self.task.params.logprobs))
        self.first_token = self.first_token or now
        self.last_token = now
        if piece.finish_reason:
            self.finish(line, piece.finish_reason, piece.stop_reason)
        line.has_news = True
        self.news.set()

    def finish(self, line: Line, reason: v1.FinishReason, stop_reason: str = "") -> None:
        line.chunk.finish_reason = reason
        line.chunk.stop_reason = stop_reason
        line.is_done = line.has_news = True
        self.news.set()

    def fail(self, error: AutoGLMError) -> None:
        self.error = error
        self.news.set()

    def take(self) -> list[v1.GenerateChunk]:
        """Return what is new, a chunk for each completion; the last of all has usage and timing."""
        self.news.clear()
        chunks = []
        for line in self.lines:
            if line.has_news:
                chunks.append(line.chunk)
                line.chunk = v1.GenerateChunk(id=self.id, index=line.chunk.index)
                line.has_news = False
        if chunks and self.is_done:
            chunks[-1].usage.CopyFrom(self._usage())
            chunks[-1].timing.CopyFrom(self._timing())
        return chunks

    def _usage(self) -> v1.Usage:
        return v1.Usage(
            prompt_tokens=len(self.task.prompt),
            completion_tokens=sum(len(x.job.ids) - x.job.prompt_tokens for x in self.lines),
            cached_tokens=self.lines[0].job.cached_tokens,
        )

    def _timing(self) -> v1.Timing:
        first = self.first_token or self.arrived
        admitted = next((x.job.admitted for x in self.lines if x.job.admitted is not None), first)
        return v1.Timing(
            queue_seconds=admitted - self.arrived,
            prefill_seconds=max(0.0, first - admitted),
            decode_seconds=max(0.0, self.last_token - first),
        )


def new_request(
    request_id: str, task: Task, now: float, hang_after: int | None, root: int = 0
) -> Request:
    """Only requests with the same `root` share blocks. Raises ResumeImpossible."""
    lines = [_line(request_id, task, index, hang_after, root) for index in range(task.n)]
    request = Request(request_id, task, now, lines)
    if request.is_done:
        # The other pod had delivered all tokens before its stream broke, but not their usage.
        lines[-1].has_news = True
        request.news.set()
    return request


def _line(request_id: str, task: Task, index: int, hang_after: int | None, root: int) -> Line:
    job = Job(list(task.prompt), task.priority, hang_after, root)
    completion = Completion(task.output, task.params, task.max_tokens, index)
    line = Line(job, completion, v1.GenerateChunk(id=request_id, index=index))
    if index in task.resumed:
        resumed = task.resumed[index]
        completion.skip(resumed.token_ids)
        job.ids.extend(resumed.token_ids)
        line.is_done = resumed.finished
    return line
