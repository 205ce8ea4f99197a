"""Triton's ModelStreamInfer: many requests on one stream, each with its own pass of the pipeline.

A request's error is a message on the stream, which continues. Responses to different requests may
interleave; those to one request keep their order. Called by the gRPC edge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import DecodeError

from autoglm.common import errors, status
from autoglm.gateway.request.http_usage import reported_usage
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response
from autoglm.v1 import open_inference_pb2 as oip

# Concurrent requests of one stream; the next one is read when one has ended.
MAX_CONCURRENT = 64
# Chunks that wait for a slow reader.
_QUEUED = 16


async def respond_to_stream(
    requests: AsyncIterator[bytes],
    request_of: Callable[[bytes], Awaitable[GatewayRequest]],
    handler: Handler,
) -> AsyncIterator[bytes]:
    """Yield the chunks of all responses, until the requests and their responses have ended."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
    gate = asyncio.Semaphore(MAX_CONCURRENT)

    async def respond(request: GatewayRequest) -> None:
        record = RequestRecord()

        async def deliver(response: Response) -> None:
            await response.forward(queue.put)
            if not record.is_metered:
                record.usage = reported_usage(await response.trailers())

        try:
            await handler(request, record, deliver)
        except errors.AutoGLMError as error:
            await queue.put(error_message(record.request or request, error))
        finally:
            gate.release()

    async def respond_to_all() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                problem = await begin_all(tasks)
            if problem is not None:
                raise problem
        except Exception:
            # Wakes the reader below, which then gets the error from `work`. Not when cancelled:
            # then there is no reader, and put() would wait for a full queue without end.
            await queue.put(None)
            raise
        await queue.put(None)

    async def begin_all(tasks: asyncio.TaskGroup) -> errors.AutoGLMError | None:
        """Start all requests. Returns the stream's error, which follows the open responses."""
        try:
            async for payload in requests:
                await gate.acquire()
                tasks.create_task(respond(await request_of(payload)))
        except errors.AutoGLMError as error:
            return error
        return None

    work = asyncio.create_task(respond_to_all())
    try:
        while (chunk := await queue.get()) is not None:
            yield chunk
        await work
    finally:
        work.cancel()
        await asyncio.wait([work])


def error_message(request: GatewayRequest, error: errors.AutoGLMError) -> bytes:
    """Return the protocol's message for an error."""
    try:
        name = oip.ModelInferRequest.FromString(request.payload).id
    except DecodeError:
        name = ""
    return oip.ModelStreamInferResponse(
        error_message=f"{error.reason}: {status.visible_message(error)}",
        infer_response=oip.ModelInferResponse(model_name=request.model, id=name),
    ).SerializeToString()
