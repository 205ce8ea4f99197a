"""What a request has really taken, learnt from its answer on the way. Pure but for the iterating.

Only requests of tenants with a limit of tokens are metered: a gRPC chunk is parsed for its token
ids, of an event stream the events are counted, and of both the end is kept for the pod's usage.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from autoglm import v1
from autoglm.common import errors
from autoglm.common.validation import Operation
from autoglm.gateway.call import Call, Notes, Reply, Trailers, Usage
from autoglm.gateway.methods import BY_PATH
from autoglm.gateway.rest_usage import TAIL_BYTES, usage_in

_SSE = "text/event-stream"
_EVENT = b"data: "
# No message of a stream with a token in it has fewer.
_LEAST_BYTES = 10
# Longer answers than this in one piece say their usage too late to be kept.
WHOLE_BYTES = 1024 * 1024
# Whoever leaves or runs out of time has had the pod read the prompt; other errors are not theirs.
_LEFT = (
    asyncio.CancelledError,
    GeneratorExit,
    errors.Cancelled,
    errors.DeadlineExceeded,
    TimeoutError,
)
_GENERATED: Mapping[str, Callable[[bytes], int]] = {
    "/autoglm.v1.Inference/GenerateStream": lambda c: len(v1.GenerateChunk.FromString(c).token_ids),
    "/autoglm.v1.Inference/ChatStream": lambda c: len(v1.ChatChunk.FromString(c).token_ids),
}


def wanted_tokens(call: Call) -> int:
    """What is to be reserved: prompt and the most of a completion, as far as it is said."""
    if call.ask is None or call.ask.operation is Operation.TOKENIZE:
        return 0
    return call.ask.estimated_tokens


class Meter:
    """Of one call. `generated` are the tokens that are known to have come so far."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._kept = b""
        self._keep = 0
        self._status = 0
        self.generated = 0

    def read(self, reply: Reply, headers: Mapping[str, str]) -> Reply:
        """The reply, counted on its way; with `headers`, which gRPC has as trailers."""
        self._status = reply.status
        chunks = self._chunks(reply)
        if self._call.wire == "http":
            return replace(reply, chunks=chunks, headers={**reply.headers, **headers})

        async def trailers() -> Trailers:
            return (*await reply.trailers(), *headers.items())

        return replace(reply, chunks=chunks, trailers=trailers)

    def used(self, reserved: float, notes: Notes, failure: BaseException | None) -> float:
        """Tokens to be charged for."""
        if wanted_tokens(self._call) == 0 or self._status >= 400:
            return 0.0
        usage = self._usage() or notes.usage
        if usage is not None and usage.total:
            return float(usage.total)
        assert self._call.ask is not None
        so_far = float(self._call.ask.prompt_tokens + self._generated(reserved))
        if failure is None:
            return max(reserved, so_far)
        return so_far if notes.first_chunk or isinstance(failure, _LEFT) else 0.0

    def _generated(self, reserved: float) -> int:
        """What has come, or the most that can have come of an answer that nobody here has seen."""
        if self._call.exchange is None:
            return self.generated
        return min(int(reserved), self._call.exchange.body_bytes // _LEAST_BYTES)

    async def _chunks(self, reply: Reply) -> AsyncIterator[bytes]:
        note = self._note_message if self._call.wire == "grpc" else self._note_bytes
        is_stream = _content_type(reply).startswith(_SSE)
        self._keep = TAIL_BYTES if is_stream else WHOLE_BYTES
        async with aclosing(cast(Any, reply.chunks)) as chunks:
            async for chunk in chunks:
                note(chunk)
                yield chunk

    def _note_message(self, chunk: bytes) -> None:
        self._kept = chunk
        if generated := _GENERATED.get(self._call.target):
            self.generated += generated(chunk)

    def _note_bytes(self, chunk: bytes) -> None:
        self._kept = (self._kept + chunk)[-self._keep :]
        if self._keep == TAIL_BYTES:
            self.generated += chunk.count(_EVENT)

    def _usage(self) -> Usage | None:
        if not self._kept:
            return None
        if self._call.wire == "http":
            return usage_in(self._kept)
        return BY_PATH[self._call.target].usage(self._kept)


def _content_type(reply: Reply) -> str:
    return next((v.lower() for k, v in reply.headers.items() if k.lower() == "content-type"), "")
