"""The picker: answers Envoy's questions about requests (ext_proc), and reads how their calls end.

Turns a request's headers, and its body where it must, into the same `GatewayRequest` as the other
edges make, has it pass the same layers, and tells Envoy the pod or the error. The call holds its
place until Envoy's access log says that its stream has ended. Decides nothing about models or pods.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from autoglm.common import rpc
from autoglm.common.errors import AutoGLMError, Cancelled, DeadlineExceeded, forget_frames
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import (
    access_log_pb2,
    access_log_pb2_grpc,
    answers,
    ext_proc_pb2_grpc,
    request,
)
from autoglm.gateway.envoy.ending import ending_of
from autoglm.gateway.envoy.exchange import Exchange, Exchanges
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord

# Envoy ends a call at its deadline; where its report does not come, the call ends here.
_REPORT_SECONDS = 10.0


class Picker(ext_proc_pb2_grpc.ExternalProcessorServicer):
    """One stream of messages for each request.

    `process` is this one's number where several decide for one Envoy.
    """

    def __init__(
        self,
        relay: Handler,
        exchanges: Exchanges,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        process: int | None = None,
    ) -> None:
        self._relay = relay
        self._process = process
        self._exchanges = exchanges
        self._bounds = bounds
        self._clock = clock
        self._calls: set[asyncio.Task[None]] = set()

    async def Process(self, _: Any, context: Any) -> None:  # type: ignore[override]  # writes by the context
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        seen = request.seen(first.request_headers)
        wire = request.wire_of(seen)
        exchange = Exchange(seen.values[rpc.CALL_HEADER], wire, frozenset(seen.values))
        self._exchanges.open(exchange)
        body = _Body(context, seen.has_body)
        call = request.begin(seen, exchange, self._bounds, body, self._clock())
        answer = await self._directions(call, exchange)
        if isinstance(answer, AutoGLMError):
            await context.write(answers.refused(call, answer))
        else:
            told = answers.sent(answer, after_body=body.is_asked, process=self._process)
            await context.write(told)

    async def _directions(self, call: GatewayRequest, exchange: Exchange) -> Any:
        """What is decided."""
        task = self._start(call, exchange)
        try:
            return await exchange.directions
        except asyncio.CancelledError:
            # The client has gone while its request waited.
            task.cancel()
            raise

    def _start(self, call: GatewayRequest, exchange: Exchange) -> asyncio.Task[None]:
        """The call goes on in a task of its own until it has ended."""
        task = asyncio.create_task(self._run(call, exchange))
        exchange.on_left = task.cancel
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def _run(self, call: GatewayRequest, exchange: Exchange) -> None:
        notes = RequestRecord()
        try:
            async with asyncio.timeout(call.deadline - self._clock() + _REPORT_SECONDS):
                async with self._relay(call, notes) as reply:
                    notes.usage = exchange.usage
                    notes.endpoint = exchange.served or notes.endpoint
                    await exchange.deliver(reply)
        except AutoGLMError as error:
            forget_frames(error)
            exchange.fail(error)
        except TimeoutError:
            exchange.fail(DeadlineExceeded("the deadline passed"))
        except asyncio.CancelledError:
            # A cancelled task keeps the exception, and with its frames all of the call, which keeps
            # the task; here nobody asks how it has ended.
            pass
        finally:
            self._exchanges.close(exchange)

    async def close(self) -> None:
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


class _Body:
    """A request's body, which Envoy shows when it is asked for it."""

    def __init__(self, context: Any, is_there: bool) -> None:
        self._context = context
        self._is_there = is_there
        self.is_asked = False

    async def __call__(self) -> bytes:
        if not self._is_there:
            return b""
        self.is_asked = True
        await self._context.write(answers.request_body())
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise Cancelled("the caller went away")
        return bytes(message.request_body.body)


class AccessLogService(access_log_pb2_grpc.AccessLogServiceServicer):
    """Envoy's access log, of the calls that it carries."""

    def __init__(self, exchanges: Exchanges, clock: Callable[[], float] = time.monotonic) -> None:
        self._exchanges = exchanges
        self._clock = clock

    async def StreamAccessLogs(self, requests: Any, _: Any) -> Any:
        async for message in requests:
            for entry in message.http_logs.log_entry:
                self._note(entry)
        return access_log_pb2.StreamAccessLogsResponse()

    def _note(self, entry: Any) -> None:
        exchange = self._exchanges.get(entry.request.request_headers.get(rpc.CALL_HEADER, ""))
        if exchange is not None:
            exchange.end(ending_of(entry, exchange.wire, self._clock()))
