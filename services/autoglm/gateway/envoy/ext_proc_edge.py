"""The picker: the ext_proc and access log services for the gateway's own Envoy.

Builds the same `GatewayRequest` as the other edges from a request's headers, and from its body if
needed, runs the pipeline, and sends Envoy the pod or the error. The request holds its slot until
Envoy's access log reports the end of its stream.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from autoglm.common import rpc
from autoglm.common.errors import AutoGLMError, Cancelled, DeadlineExceeded, forget_frames
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import (
    access_log_pb2,
    access_log_pb2_grpc,
    ext_proc_pb2_grpc,
    messages,
)
from autoglm.gateway.envoy import (
    request as envoy_request,
)
from autoglm.gateway.envoy.exchange import Exchange, Exchanges
from autoglm.gateway.envoy.messages import ending_of
from autoglm.gateway.request.memory_budget import MemoryReservation
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response

# Envoy ends a request at its deadline; without its report, the request ends so much later.
_REPORT_SECONDS = 10.0


class Picker(ext_proc_pb2_grpc.ExternalProcessorServicer):
    """The ext_proc service: one stream of messages for each request."""

    def __init__(self, pipeline: Handler, exchanges: Exchanges, bounds: Bounds) -> None:
        self._pipeline = pipeline
        self._exchanges = exchanges
        self._bounds = bounds
        self._calls: set[asyncio.Task[None]] = set()

    async def Process(self, _: Any, context: Any) -> None:  # type: ignore[override]  # writes by the context
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        seen = envoy_request.seen(first.request_headers)
        wire = envoy_request.wire_of(seen)
        exchange = Exchange(seen.values[rpc.CALL_HEADER], wire, frozenset(seen.values))
        self._exchanges.open(exchange)
        body = _Body(context, seen.has_body)
        request = envoy_request.begin(seen, exchange, self._bounds, body, time.monotonic())
        task = self._start(request, exchange)
        try:
            directions = await exchange.directions
        except asyncio.CancelledError:
            # The client has left while its request waited.
            task.cancel()
            raise
        if isinstance(directions, AutoGLMError):
            message = messages.rejected(request, directions)
        else:
            message = messages.sent(directions, after_body=body.is_requested)
        await context.write(message)

    def _start(self, request: GatewayRequest, exchange: Exchange) -> asyncio.Task[None]:
        """Run the request in a task of its own until it has ended."""
        task = asyncio.create_task(self._run(request, exchange))
        exchange.on_left = task.cancel
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def _run(self, request: GatewayRequest, exchange: Exchange) -> None:
        record = RequestRecord()

        async def deliver(response: Response) -> None:
            record.usage = exchange.usage
            record.endpoint = exchange.served or record.endpoint
            await exchange.deliver(response)

        try:
            async with asyncio.timeout(request.deadline - time.monotonic() + _REPORT_SECONDS):
                await self._pipeline(request, record, deliver)
        except AutoGLMError as error:
            forget_frames(error)
            exchange.fail(error)
        except TimeoutError:
            exchange.fail(DeadlineExceeded("the deadline passed"))
        except asyncio.CancelledError:
            # A cancelled task would keep the exception, whose frames refer to the request, which
            # refers to the task; no code awaits this task's result.
            pass
        finally:
            self._exchanges.close(exchange)

    async def close(self) -> None:
        """Cancel all requests."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


class _Body:
    """A request's body, which Envoy sends on request."""

    def __init__(self, context: Any, is_there: bool) -> None:
        self._context = context
        self._is_there = is_there
        self.is_requested = False

    async def __call__(self, hold: MemoryReservation) -> bytes:
        """Return the body, counted in the memory budget although Envoy holds it."""
        if not self._is_there:
            return b""
        self.is_requested = True
        await self._context.write(messages.request_body())
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise Cancelled("the client disconnected")
        body = bytes(message.request_body.body)
        hold.take(len(body))
        return body


class AccessLogService(access_log_pb2_grpc.AccessLogServiceServicer):
    """Receives Envoy's access log and ends the exchanges of its entries."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    async def StreamAccessLogs(self, requests: Any, _: Any) -> Any:
        async for message in requests:
            for entry in message.http_logs.log_entry:
                key = entry.request.request_headers.get(rpc.CALL_HEADER, "")
                if (exchange := self._exchanges.get(key)) is not None:
                    exchange.end(ending_of(entry, exchange.wire, time.monotonic()))
        return access_log_pb2.StreamAccessLogsResponse()
