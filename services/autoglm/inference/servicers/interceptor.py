"""The pod's gRPC interceptor: reads, counts, traces and logs each request, and rejects late ones.

A message that exceeds a bound is rejected before protobuf builds objects of it; the facts of a
large one are read from an abridged copy, off the event loop where that takes long. `info_of`
returns them. Stands inside the error interceptor, so that it sees our own exceptions. Only the
methods of `OBSERVED` are requests; probes, load streams and reflection pass unseen and hold up no
shutdown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from msgspec import structs

from autoglm import v1
from autoglm.common import rpc, semconv
from autoglm.common.errors import AutoGLMError
from autoglm.common.request_telemetry import trace_headers
from autoglm.common.status import usage_field, usage_of
from autoglm.common.telemetry import MODEL_CHARACTERS
from autoglm.inference.observation import Observation, outcome_of
from autoglm.inference.pod import Pod
from autoglm.v1 import inference_pb2
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
from autoglm.validation.scan.reading import in_steps, off_loop

M = TypeVar("M", bound=Message)
Behaviour = Callable[[Any, Any], Any]
# Probes of the Open Inference Protocol are no requests.
_OIP_REQUESTS = ("ModelInfer", "ModelStreamInfer", "ModelMetadata")
_INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["Inference"]
OBSERVED = frozenset(
    (
        *(f"/{_INFERENCE.full_name}/{method.name}" for method in _INFERENCE.methods),
        *(f"/inference.GRPCInferenceService/{name}" for name in _OIP_REQUESTS),
    )
)
_EXTRACTORS: dict[type[Message], Callable[..., RequestInfo]] = {
    v1.GenerateRequest: of_generate,
    v1.ChatRequest: of_chat,
    v1.EmbedRequest: of_embed,
    v1.PredictRequest: of_predict,
    v1.TokenizeRequest: of_tokenize,
    oip.ModelInferRequest: of_oip,
}
# The facts of a large request of the call being served, or the error in it.
_info: ContextVar[RequestInfo | AutoGLMError | None] = ContextVar("request_info", default=None)


def info_of(request: Message, *, streaming: bool = False) -> RequestInfo:
    """Return the facts of the request of the call being served. Raises InvalidRequest."""
    match _info.get():
        case None:
            options = {"streaming": True} if streaming else {}
            return _EXTRACTORS[type(request)](request, **options)
        case RequestInfo() as info:
            return structs.replace(info, streaming=True) if streaming else info
        case error:
            raise error


class RequestInterceptor(grpc.aio.ServerInterceptor):
    def __init__(self, pod: Pod, bounds: Bounds) -> None:
        self._pod = pod
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
            unary = self._unary(kind, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(unary, *codecs)
        if handler.request_streaming:
            stream = self._stream(handler.stream_stream, lambda many: self._read_each(kind, many))
            return grpc.stream_stream_rpc_method_handler(stream, *codecs)
        stream = self._stream(handler.unary_stream, lambda one: self._read(kind, one))
        return grpc.unary_stream_rpc_method_handler(stream, *codecs)

    def _unary(self, kind: type[Message], behaviour: Behaviour) -> Behaviour:
        async def call(payload: bytes, context: Any) -> Any:
            request = await self._read(kind, payload)
            await self._pod.gate.passed()
            with self._pod.request():
                seen, failure = _begin(request), None
                try:
                    response = await behaviour(request, context)
                    seen.chunk()
                    _note_usage(seen, response, context)
                    return response
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    _end(seen, failure)

        return call

    def _stream(self, behaviour: Behaviour, read: Callable[[Any], Awaitable[Any]]) -> Behaviour:
        async def call(payload: Any, context: Any) -> AsyncIterator[Any]:
            request = await read(payload)
            await self._pod.gate.passed()
            with self._pod.request():
                seen, failure, message = _begin(request), None, None
                try:
                    async with aclosing(behaviour(request, context)) as messages:
                        async for message in messages:
                            seen.chunk()
                            yield message
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    _note_usage(seen, message, context)
                    _end(seen, failure)

        return call

    async def _read(self, kind: type[M], payload: bytes) -> M:
        """Parse a message. Raises InvalidRequest where it is malformed or exceeds a bound."""
        _info.set(None)
        if not proto_scan.is_small(payload, kind):
            abridged = await in_steps(proto_scan.scan(payload, kind, self._bounds))
            if extract := _EXTRACTORS.get(kind):

                def read() -> RequestInfo:
                    return extract(proto_scan.parsed(abridged, kind), cut=abridged.cut)

                try:
                    _info.set(await off_loop(abridged, read))
                except AutoGLMError as error:
                    # The servicer raises it, where the request is counted.
                    _info.set(error)
        return proto_scan.parsed(payload, kind)

    async def _read_each(self, kind: type[M], payloads: AsyncIterator[bytes]) -> AsyncIterator[M]:
        async def requests() -> AsyncIterator[M]:
            async for payload in payloads:
                yield await self._read(kind, payload)

        return requests()


def _begin(request: Any) -> Observation:
    """Begin the request's record, and make the engine's spans children of its span."""
    current = rpc.current_rpc.get()
    method = current.method.lstrip("/")
    seen = Observation.begin("grpc", method, current.request_id, current.trace_headers)
    rpc.current_rpc.set(replace(current, trace_headers=trace_headers(seen.span)))
    model = getattr(request, "model", "") or getattr(request, "model_name", "")
    if model:
        seen.attributes[semconv.GEN_AI_REQUEST_MODEL] = model[:MODEL_CHARACTERS]
    return seen


def _note_usage(seen: Observation, message: Any, context: Any) -> None:
    """Set usage on the span, and as a trailer for proxies that do not read the messages."""
    counted = usage_of(message)
    if counted is not None:
        seen.attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] = counted.prompt_tokens
        seen.attributes[semconv.GEN_AI_USAGE_OUTPUT_TOKENS] = counted.completion_tokens
        context.set_trailing_metadata((usage_field(counted),))


def _end(seen: Observation, failure: BaseException | None) -> None:
    known = failure if isinstance(failure, AutoGLMError) else None
    outcome = outcome_of(failure)
    code = known.grpc_status if known else ("OK" if failure is None else outcome.upper())
    seen.end(outcome, code, known.message if known else "")
