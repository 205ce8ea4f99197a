"""The endpoint picker of other gateways' Envoys, by the endpoint picker protocol (proposal 004 of
the Gateway API Inference Extension).

One stream of messages for each request, from its headers to the end of its response. Requests pass
the same pipeline and router as on every edge; a request holds its slot until the response or the
stream has ended. Bodies are returned unchanged. The picker never retries on a second pod; the proxy
may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import grpc

from autoglm.common.errors import AutoGLMError, DeadlineExceeded
from autoglm.common.rpc import new_request_id
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import ext_proc_pb2_grpc
from autoglm.gateway.envoy.endpoint_picker import messages
from autoglm.gateway.envoy.endpoint_picker.request import (
    MODE,
    StreamedBody,
    call_of,
    mode_of,
    seen_of,
    served,
    wire_of,
)
from autoglm.gateway.envoy.endpoint_picker.responses import PodResponse
from autoglm.gateway.envoy.exchange import Directions, Exchange, Exchanges
from autoglm.gateway.envoy.exchange_runner import ExchangeRunner
from autoglm.gateway.request.request import GatewayRequest, Handler

# After the pod's own timeout of the same deadline, which has the better message.
_LATER_SECONDS = 0.2
_RESPONSE_PHASES = ("response_headers", "response_body", "response_trailers")


class EndpointPicker(ext_proc_pb2_grpc.ExternalProcessorServicer):
    """The ext_proc service for Envoys of other gateways."""

    def __init__(self, pipeline: Handler, bounds: Bounds) -> None:
        # Exchanges of its own: no request resumes one of these.
        self._runner = ExchangeRunner(pipeline, Exchanges())
        self._bounds = bounds

    async def Process(self, _: Any, context: Any) -> None:  # type: ignore[override]  # writes by the context
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        seen = seen_of(first.request_headers)
        names = frozenset(seen.values)
        exchange = Exchange(new_request_id(), wire_of(seen), names, is_external_proxy=True)
        body = StreamedBody(self._bounds.max_body_bytes, is_there=seen.has_body)
        request = call_of(first, seen, exchange, self._bounds, body, time.monotonic())
        task = self._runner.start(request, exchange)
        stream = _Stream(context, first, exchange, body)
        try:
            if await stream.until_directed():
                await self._forward(stream, request)
            else:
                # The client has left while its request waited, or the proxy has responded.
                task.cancel()
                await stream.follow()
        finally:
            stream.close()
            if exchange.directions.done() and not exchange.directions.cancelled():
                exchange.end(stream.response.so_far())
            else:
                task.cancel()

    async def close(self) -> None:
        """Cancel all requests."""
        await self._runner.close()

    async def _forward(self, stream: _Stream, request: GatewayRequest) -> None:
        directions = stream.exchange.directions.result()
        if isinstance(directions, AutoGLMError):
            await stream.write(messages.rejected(request, directions))
            return
        try:
            async with asyncio.timeout(directions.timeout + _LATER_SECONDS):
                await stream.send(directions)
                await stream.follow()
        except TimeoutError:
            error = DeadlineExceeded("the deadline passed before the response ended")
            stream.exchange.end(stream.response.late(error))
            await stream.write(messages.rejected(request, error))


class _Stream:
    """The stream of messages of one request. Used by one task."""

    def __init__(self, context: Any, first: Any, exchange: Exchange, body: StreamedBody) -> None:
        self._context = context
        self._body = body
        self._has_body = not body.is_whole
        self._has_trailers = False
        self._is_duplex = mode_of(first, "request") == MODE.FULL_DUPLEX_STREAMED
        self._response_mode = mode_of(first, "response")
        self._has_requested_body = False
        self._reading: asyncio.Future[Any] | None = None
        self.exchange = exchange
        self.response = PodResponse(exchange.wire)

    async def until_directed(self) -> bool:
        """Wait for the directions and read the body meanwhile; False if the stream ends first."""
        directions, wanted = self.exchange.directions, self._body.wanted
        while not directions.done():
            waits: list[asyncio.Future[Any]] = [directions]
            if not wanted.done():
                waits.append(wanted)
            if not self._body.is_long:
                self._reading = self._reading or asyncio.ensure_future(self._context.read())
                waits.append(self._reading)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if wanted.done() and not (self._is_duplex or self._has_requested_body):
                # The body arrives only after the response to the headers.
                self._has_requested_body = True
                await self.write(messages.unchanged("request_headers"))
            if self._reading is not None and self._reading.done():
                message = self._reading.result()
                if message is grpc.aio.EOF or message.WhichOneof("request") in _RESPONSE_PHASES:
                    return False
                self._reading = None
                if message.WhichOneof("request") == "request_body":
                    body = message.request_body
                    self._body.add(body.body, is_last=body.end_of_stream or not self._is_duplex)
                else:
                    self._has_trailers = True
                    self._body.end()
        return True

    async def send(self, directions: Directions) -> None:
        """Forward the request to the pod, with the part of its body that has arrived."""
        self.response.is_read = self.exchange.is_read
        await self.write(messages.picked(directions, after_body=self._has_requested_body))
        if not (self._is_duplex and self._has_body):
            return
        body, is_last = self._body.take(), self._body.is_whole and not self._has_trailers
        if body or is_last:
            await self.write(*messages.streamed("request_body", body, is_last=is_last))
        if self._has_trailers:
            await self.write(messages.unchanged("request_trailers"))

    async def follow(self) -> None:
        """Pass messages through until the response or the stream has ended."""
        while True:
            # A read that `until_directed` began is completed first.
            message = await (self._reading or self._context.read())
            self._reading = None
            if message is grpc.aio.EOF:
                break
            await self.write(*self._replies(message))
            if self.response.has_ended:
                self.exchange.end(self.response.end())
                return
        if self.response.has_begun and self._response_mode == MODE.NONE:
            # The proxy sends only the response headers.
            self.exchange.end(self.response.end())

    async def write(self, *messages: Any) -> None:
        """Send the messages to Envoy."""
        for message in messages:
            await self._context.write(message)

    def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()

    def _replies(self, message: Any) -> Iterable[Any]:
        phase = message.WhichOneof("request")
        if phase == "response_body":
            body = message.response_body
            self.response.piece(body.body, is_last=body.end_of_stream)
            is_duplex = self._response_mode == MODE.FULL_DUPLEX_STREAMED
        elif phase == "request_body":
            body, is_duplex = message.request_body, self._is_duplex
        else:
            if phase == "response_headers":
                self.response.head(message.response_headers, time.monotonic())
                self.response.served = served(message)
            elif phase == "response_trailers":
                self.response.trailers(message.response_trailers)
            return (messages.unchanged(phase),)
        if not is_duplex:
            return (messages.unchanged(phase),)
        return messages.streamed(phase, body.body, is_last=body.end_of_stream)
