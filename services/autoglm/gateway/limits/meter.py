"""Counts the tokens that a request used, from its response. Pure except for iterating it.

Only requests of tenants with a rate limit are metered: gRPC chunks are parsed for their token ids,
and the last one for the pod's usage; `openai_usage` reads responses over HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from autoglm import v1
from autoglm.common import errors
from autoglm.gateway.request.event_stream import is_event_stream
from autoglm.gateway.request.grpc_methods import BY_PATH
from autoglm.gateway.request.openai_usage import UsageReader, reported_usage
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Trailers, Usage
from autoglm.validation import Billing

# Failures that the client pays for: the pod has computed its prompt.
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


def wanted_tokens(call: GatewayRequest) -> int:
    """Return the tokens to reserve: the prompt and the longest completion, as estimated."""
    return 0 if call.info is None else call.info.estimated_tokens


class Meter:
    """Meters one request. Calls `unmetered` with the reason if a served request is charged by its
    estimate alone; streams are charged by their events instead.
    """

    def __init__(
        self, call: GatewayRequest, notes: RequestRecord, unmetered: Callable[[str], object]
    ) -> None:
        self._call = call
        self._notes = notes
        self._unmetered = unmetered
        self._reader: UsageReader | None = None
        self._last = b""
        self._tokens = 0
        self._status = 0

    def read(self, reply: Response, headers: Mapping[str, str]) -> Response:
        """Return the response with its chunks counted and `headers` added; trailers over gRPC."""
        self._status = reply.status
        self._notes.is_metered = True
        if self._call.wire == "http":
            is_stream = is_event_stream(reply.headers)
            self._reader = UsageReader(is_stream=is_stream, headers=reply.headers)
            chunks = self._chunks(reply, self._reader.add)
            return replace(reply, chunks=chunks, headers={**reply.headers, **headers})

        async def trailers() -> Trailers:
            return (*await reply.trailers(), *headers.items())

        return replace(reply, chunks=self._chunks(reply, self._note_message), trailers=trailers)

    def used(self, reserved: float, failure: BaseException | None) -> float:
        """Return the tokens to charge, after the request has ended."""
        info, notes = self._call.info, self._notes
        if info is None or info.billing is Billing.FREE or self._status >= 400:
            return 0.0
        notes.usage = notes.usage or self._usage()
        if notes.usage is not None and notes.usage.total:
            return float(notes.usage.total)
        counted = self._reader.events if self._reader else self._tokens
        so_far = float(info.prompt_tokens + self._call.exchange.generated(counted, reserved))
        if failure is None:
            self._count_unmetered(info.billing)
            return max(reserved, so_far)
        return so_far if notes.first_chunk or isinstance(failure, _LEFT) else 0.0

    def _count_unmetered(self, billing: Billing) -> None:
        if billing is Billing.BODY:
            self._unmetered("unknown_path")
        elif not self._tokens and (self._reader is None or not self._reader.events):
            self._unmetered("no_usage")

    async def _chunks(self, reply: Response, note: Callable[[bytes], None]) -> AsyncIterator[bytes]:
        async with aclosing(cast(Any, reply.chunks)) as chunks:
            async for chunk in chunks:
                note(chunk)
                yield chunk
        usage = self._usage()
        if usage is None and self._call.wire == "grpc":
            # Messages of the Open Inference Protocol have no field for usage.
            usage = reported_usage(await reply.trailers())
        # Before the proxy's context ends: its span reports the usage.
        self._notes.usage = usage or self._notes.usage

    def _note_message(self, chunk: bytes) -> None:
        self._last = chunk
        if generated := _GENERATED.get(self._call.target):
            self._tokens += generated(chunk)

    def _usage(self) -> Usage | None:
        if self._reader is not None:
            return self._reader.usage()
        return BY_PATH[self._call.target].usage(self._last) if self._last else None
