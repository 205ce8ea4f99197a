"""Responses of the gateway's handlers and upstreams, made and read by tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from autoglm.gateway.request.request import (
    Forward,
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
    Write,
)


def forward(chunks: Iterable[bytes | BaseException | float]) -> Forward:
    """Forwards chunks; a number is a pause in seconds, an exception is raised."""

    async def forwarded(write: Write) -> None:
        for chunk in chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            if isinstance(chunk, float):
                await asyncio.sleep(chunk)
            elif (waiting := write(chunk)) is not None:
                await waiting

    return forwarded


async def chunks_of(response: Response) -> AsyncIterator[bytes]:
    """The chunks of a response, each taken when the one before it has been used."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)

    async def forwarded() -> None:
        try:
            await response.forward(queue.put)
        finally:
            await queue.put(None)

    task = asyncio.create_task(forwarded())
    try:
        while (chunk := await queue.get()) is not None:
            yield chunk
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def opened(
    handler: Handler, request: GatewayRequest, record: RequestRecord | None = None
) -> AsyncIterator[Response]:
    """The response of a handler, which is delivered when the context ends.

    An exception in the context is that of the delivery.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Response] = loop.create_future()
    delivered: asyncio.Future[None] = loop.create_future()

    async def deliver(response: Response) -> None:
        arrived.set_result(response)
        await delivered

    task = asyncio.ensure_future(handler(request, record or RequestRecord(), deliver))
    try:
        await asyncio.wait((task, arrived), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    if not arrived.done():
        await task
        raise AssertionError("the handler delivered nothing")
    try:
        yield arrived.result()
    except Exception as error:
        delivered.set_exception(error)
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    else:
        delivered.set_result(None)
    await task
