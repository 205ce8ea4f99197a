"""The endpoint picker: answers Envoys that are not ours, as the Gateway API Inference Extension
has it (proposal 004, endpoint picker protocol).

One stream of messages for each request, from its headers to the end of its answer. Requests become
the same calls as everywhere, pass the same layers and the same router; a call holds its place until
the answer has ended or the stream has. Bodies pass through and go back as they came. Decides
nothing about models or pods, and never asks a second pod: the proxy may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from autoglm.common.errors import AutoGLMError, DeadlineExceeded
from autoglm.common.rpc import new_request_id
from autoglm.gateway.envoy import answers, request
from autoglm.gateway.envoy.endpoint_picker.request import (
    MODE,
    answer_mode,
    body_mode,
    call_of,
    served,
    wire_of,
)
from autoglm.gateway.envoy.endpoint_picker.responses import Answer
from autoglm.gateway.envoy.endpoint_picker.streamed_body import StreamedBody
from autoglm.gateway.envoy.exchange import Directions, Exchange
from autoglm.gateway.envoy.ext_proc_edge import Picker
from autoglm.gateway.request.request import GatewayRequest

# After the pod's own end of the same deadline, which has the better words.
_LATER_SECONDS = 0.2
_OF_ANSWERS = ("response_headers", "response_body", "response_trailers")


class EndpointPicker(Picker):
    """For Envoys that are not this gateway's."""

    async def Process(self, _: Any, context: Any) -> None:  # type: ignore[override]  # writes by the context
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        seen = request.seen(first.request_headers)
        names = frozenset(seen.values)
        exchange = Exchange(new_request_id(), wire_of(seen), names, is_external_proxy=True)
        body = StreamedBody(self._bounds.max_body_bytes, is_there=seen.has_body)
        call = call_of(first, seen, exchange, self._bounds, body, self._clock())
        task = self._start(call, exchange)
        stream = _Stream(context, first, exchange, body)
        try:
            if await stream.until_directed():
                await self._go(stream, call)
            else:
                # The client has gone while its request waited, or the proxy has answered it.
                task.cancel()
                await stream.follow(self._clock)
        finally:
            stream.close()
            if exchange.directions.done() and not exchange.directions.cancelled():
                exchange.end(stream.answer.so_far())
            else:
                task.cancel()

    async def _go(self, stream: _Stream, call: GatewayRequest) -> None:
        directions = stream.exchange.directions.result()
        if isinstance(directions, AutoGLMError):
            await stream.write(answers.refused(call, directions))
            return
        try:
            async with asyncio.timeout(directions.timeout + _LATER_SECONDS):
                await stream.send(directions)
                await stream.follow(self._clock)
        except TimeoutError:
            error = DeadlineExceeded("the deadline passed before the answer had ended")
            stream.exchange.end(stream.answer.late(error))
            await stream.write(answers.refused(call, error))


class _Stream:
    """What goes to and fro about one request. Used by one task."""

    def __init__(self, context: Any, first: Any, exchange: Exchange, body: StreamedBody) -> None:
        self._context = context
        self._body = body
        self._has_body = not body.is_whole
        self._has_trailers = False
        self._is_duplex = body_mode(first) == MODE.FULL_DUPLEX_STREAMED
        self._answer_mode = answer_mode(first)
        self._has_asked = False
        self._reading: asyncio.Future[Any] | None = None
        self.exchange = exchange
        self.answer = Answer(exchange.wire)

    async def until_directed(self) -> bool:
        """Reads on meanwhile, for the body. False where nobody waits for directions any more."""
        directions, wanted = self.exchange.directions, self._body.wanted
        while not directions.done():
            waits: list[asyncio.Future[Any]] = [directions]
            if not wanted.done():
                waits.append(wanted)
            if not self._body.is_long:
                waits.append(self._begin_reading())
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if wanted.done() and not (self._is_duplex or self._has_asked):
                # The body comes only once the headers are answered.
                self._has_asked = True
                await self.write(answers.go_on("request_headers"))
            if self._reading is not None and self._reading.done():
                message = self._reading.result()
                if message is grpc.aio.EOF or message.WhichOneof("request") in _OF_ANSWERS:
                    return False
                self._reading = None
                self._keep(message)
        return True

    async def send(self, directions: Directions) -> None:
        """The request goes on to the pod, with what is there of its body."""
        self.answer.is_read = self.exchange.is_read
        await self.write(answers.picked(directions, after_body=self._has_asked))
        if not (self._is_duplex and self._has_body):
            return
        body, is_last = self._body.take(), self._body.is_whole and not self._has_trailers
        if body or is_last:
            await self.write(*answers.streamed("request_body", body, is_last=is_last))
        if self._has_trailers:
            await self.write(answers.go_on("request_trailers"))

    async def follow(self, clock: Callable[[], float]) -> None:
        """Passes on what comes, until the answer has ended or the stream has."""
        while (message := await self._read()) is not grpc.aio.EOF:
            await self.write(*self._replies(message, clock))
            if self.answer.has_ended:
                self.exchange.end(self.answer.end())
                return
        if self.answer.has_begun and self._answer_mode == MODE.NONE:
            # More than its head was never to come.
            self.exchange.end(self.answer.end())

    async def write(self, *messages: Any) -> None:
        for message in messages:
            await self._context.write(message)

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def _begin_reading(self) -> asyncio.Future[Any]:
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._context.read())
        return self._reading

    async def _read(self) -> Any:
        if self._reading is None:
            return await self._context.read()
        message = await self._reading
        self._reading = None
        return message

    def _keep(self, message: Any) -> None:
        if message.WhichOneof("request") == "request_body":
            body = message.request_body
            self._body.add(body.body, is_last=body.end_of_stream or not self._is_duplex)
        else:
            self._has_trailers = True
            self._body.end()

    def _replies(self, message: Any, clock: Callable[[], float]) -> Iterable[Any]:
        phase = message.WhichOneof("request")
        if phase == "response_body":
            body = message.response_body
            self.answer.piece(body.body, is_last=body.end_of_stream)
            is_duplex = self._answer_mode == MODE.FULL_DUPLEX_STREAMED
        elif phase == "request_body":
            body, is_duplex = message.request_body, self._is_duplex
        else:
            if phase == "response_headers":
                self.answer.head(message.response_headers, clock())
                self.answer.served = served(message)
            elif phase == "response_trailers":
                self.answer.trailers(message.response_trailers)
            return (answers.go_on(phase),)
        if not is_duplex:
            return (answers.go_on(phase),)
        return answers.streamed(phase, body.body, is_last=body.end_of_stream)
