"""Triton's ModelStreamInfer: many requests on one stream, each a call of its own.

A request's error is a message on the stream, and the stream goes on. Answers of different requests
may interleave; those of one request keep their order. Called by the gRPC edge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import DecodeError

from autoglm.common import errors, status
from autoglm.gateway.request.openai_usage import reported_usage
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord
from autoglm.v1 import open_inference_pb2 as oip

# Requests of one stream that are worked on at once; the next one is not read before.
MAX_CONCURRENT = 64
# Chunks that wait for a slow reader.
_QUEUED = 16


async def answer_stream(
    requests: AsyncIterator[bytes],
    call_of: Callable[[bytes], Awaitable[GatewayRequest]],
    handler: Handler,
) -> AsyncIterator[bytes]:
    """Chunks of all answers, until the requests have ended and all are answered."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
    gate = asyncio.Semaphore(MAX_CONCURRENT)

    async def answer(call: GatewayRequest) -> None:
        notes = RequestRecord()
        try:
            async with handler(call, notes) as reply:
                async for chunk in reply.chunks:
                    await queue.put(chunk)
                if not notes.is_metered:
                    notes.usage = reported_usage(await reply.trailers())
        except errors.AutoGLMError as error:
            await queue.put(error_message(notes.call or call, error))
        finally:
            gate.release()

    async def answer_all() -> None:
        try:
            async with asyncio.TaskGroup() as calls:
                problem = await begin_all(calls)
            if problem is not None:
                raise problem
        except Exception:
            # Wakes the reader below, which then gets the error from `work`. Not when cancelled:
            # nobody reads then, and a full queue would be waited for without end.
            await queue.put(None)
            raise
        await queue.put(None)

    async def begin_all(calls: asyncio.TaskGroup) -> errors.AutoGLMError | None:
        """What is wrong with the stream; answers that have begun come first."""
        try:
            async for payload in requests:
                await gate.acquire()
                calls.create_task(answer(await call_of(payload)))
        except errors.AutoGLMError as error:
            return error
        return None

    work = asyncio.create_task(answer_all())
    try:
        while (chunk := await queue.get()) is not None:
            yield chunk
        await work
    finally:
        work.cancel()
        await asyncio.wait([work])


def error_message(call: GatewayRequest, error: errors.AutoGLMError) -> bytes:
    """What the protocol says instead of an answer."""
    try:
        name = oip.ModelInferRequest.FromString(call.payload).id
    except DecodeError:
        name = ""
    return oip.ModelStreamInferResponse(
        error_message=f"{error.reason}: {status.visible_message(error)}",
        infer_response=oip.ModelInferResponse(model_name=call.model, id=name),
    ).SerializeToString()
