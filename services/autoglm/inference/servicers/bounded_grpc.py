"""Reads the requests of gRPC calls within bounds, before protobuf builds objects of them.

A server interceptor. A message that exceeds a bound is rejected here; the facts of a large one are
read from an abridged copy, off the event loop where that takes long. `info_of` returns them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from autoglm import v1
from autoglm.common.errors import AutoGLMError, InvalidRequest
from autoglm.inference.servicers.grpc_observer import OBSERVED
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import (
    RequestInfo,
    of_chat,
    of_embed,
    of_generate,
    of_oip,
    of_predict,
    of_tokenize,
)
from autoglm.validation.bounds import Bounds
from autoglm.validation.scan import proto_scan
from autoglm.validation.scan.abridged import Abridged
from autoglm.validation.scan.reading import in_steps, off_loop

M = TypeVar("M", bound=Message)
Behaviour = Callable[[Any, Any], Any]
_EXTRACTORS: dict[type[Message], Callable[..., RequestInfo]] = {
    v1.GenerateRequest: of_generate,
    v1.ChatRequest: of_chat,
    v1.EmbedRequest: of_embed,
    v1.PredictRequest: of_predict,
    v1.TokenizeRequest: of_tokenize,
    oip.ModelInferRequest: of_oip,
}
# The facts of a large request of the call being served, or the error in it.
_read: ContextVar[RequestInfo | AutoGLMError | None] = ContextVar("read_request", default=None)


def info_of(request: Message, *, streaming: bool = False) -> RequestInfo:
    """Returns the facts of the request of the call being served. Raises InvalidRequest."""
    match _read.get():
        case None:
            options = {"streaming": True} if streaming else {}
            return _EXTRACTORS[type(request)](request, **options)
        case RequestInfo() as info:
            return replace(info, streaming=True) if streaming else info
        case error:
            raise error


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
        _read.set(None)
        if not proto_scan.is_small(payload, kind):
            abridged = await in_steps(proto_scan.scan(payload, kind, self._bounds))
            _read.set(await _read_info(kind, abridged))
        return _parsed(kind, payload)


async def _read_info(kind: type[Message], abridged: Abridged) -> RequestInfo | AutoGLMError | None:
    """None for a request that has no bounds of its own."""
    extract = _EXTRACTORS.get(kind)
    if extract is None:
        return None
    try:
        return await off_loop(abridged, lambda: extract(_parsed(kind, abridged), cut=abridged.cut))
    except AutoGLMError as error:
        # The servicer raises it, where the request is counted.
        return error


def _parsed(kind: type[M], payload: bytes) -> M:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest(f"the request is not a valid {name}; check its encoding") from error
