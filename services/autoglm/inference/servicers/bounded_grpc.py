"""Reads the requests of gRPC calls within bounds, before protobuf builds objects of them.

A server interceptor. A message that is over a bound is refused here; a large one is parsed and kept
abridged as well, so that validating and naming it costs little.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from autoglm.common.errors import InvalidRequest
from autoglm.inference.servicers.grpc_observer import OBSERVED
from autoglm.validation.bounds import Bounds
from autoglm.validation.request_info import Ask
from autoglm.validation.scan import proto_scan
from autoglm.validation.scan.abridged import cut_of
from autoglm.validation.scan.reading import in_steps

M = TypeVar("M", bound=Message)
Behaviour = Callable[[Any, Any], Any]
_abridged: ContextVar[bytes | None] = ContextVar("abridged_request", default=None)


def ask_of(extract: Callable[..., Ask], request: Message, **options: bool) -> Ask:
    """What the request of the call being served asks for."""
    abridged = _abridged.get()
    if abridged is None:
        return extract(request, **options)
    return extract(type(request).FromString(abridged), cut=cut_of(abridged), **options)


class BoundedMessages(grpc.aio.ServerInterceptor):
    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method not in OBSERVED:
            return handler
        kind: type[Message] = handler.request_deserializer.__self__
        codecs = (None, handler.response_serializer)
        if not handler.response_streaming:
            wrapped = self._unary(kind, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(wrapped, *codecs)
        if handler.request_streaming:
            many = self._many(kind, handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(many, *codecs)
        stream = self._stream(kind, handler.unary_stream)
        return grpc.unary_stream_rpc_method_handler(stream, *codecs)

    def _unary(self, kind: type[Message], behaviour: Behaviour) -> Behaviour:
        async def call(payload: bytes, context: Any) -> Any:
            return await behaviour(await self._read(kind, payload), context)

        return call

    def _stream(self, kind: type[Message], behaviour: Behaviour) -> Behaviour:
        async def call(payload: bytes, context: Any) -> AsyncIterator[Any]:
            request = await self._read(kind, payload)
            async with aclosing(behaviour(request, context)) as messages:
                async for message in messages:
                    yield message

        return call

    def _many(self, kind: type[Message], behaviour: Behaviour) -> Behaviour:
        async def requests(payloads: AsyncIterator[bytes]) -> AsyncIterator[Message]:
            async for payload in payloads:
                yield await self._read(kind, payload)

        async def call(payloads: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            async with aclosing(behaviour(requests(payloads), context)) as messages:
                async for message in messages:
                    yield message

        return call

    async def _read(self, kind: type[M], payload: bytes) -> M:
        _abridged.set(None)
        if not proto_scan.is_small(payload, kind):
            abridged = await in_steps(proto_scan.scan(payload, kind, self._bounds))
            if len(abridged) < len(payload):
                _abridged.set(abridged)
        try:
            return kind.FromString(payload)
        except DecodeError as error:
            name = kind.DESCRIPTOR.full_name
            raise InvalidRequest(
                f"the request is not a valid {name}; check its encoding"
            ) from error
