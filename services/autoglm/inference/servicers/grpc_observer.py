"""The pod's gRPC interceptor: counts, traces and logs each request, and rejects late ones.

Stands inside the error interceptor, so that it sees our own exceptions. Only the methods of
`OBSERVED` are requests; probes, load streams and reflection pass unseen and hold up no shutdown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc

from autoglm.common import errors, rpc, semconv
from autoglm.common.request_telemetry import trace_headers
from autoglm.common.telemetry import MODEL_CHARACTERS
from autoglm.common.usage import usage_field
from autoglm.inference.observation import Observation, counted_of, outcome_of
from autoglm.inference.pod import Pod

_METHODS = {
    "autoglm.v1.Inference": (
        "Generate",
        "GenerateStream",
        "Chat",
        "ChatStream",
        "Embed",
        "Predict",
        "Tokenize",
        "ListModels",
        "GetModel",
    ),
    "inference.GRPCInferenceService": ("ModelInfer", "ModelStreamInfer", "ModelMetadata"),
}
OBSERVED = frozenset(f"/{service}/{name}" for service, names in _METHODS.items() for name in names)


class GrpcObserver(grpc.aio.ServerInterceptor):
    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method not in OBSERVED:
            return handler
        codecs = (handler.request_deserializer, handler.response_serializer)
        if not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary), *codecs)
        if handler.request_streaming:
            wrapped = self._stream(handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(wrapped, *codecs)
        return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream), *codecs)

    def _unary(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def call(request: Any, context: Any) -> Any:
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

    def _stream(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
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


def _begin(request: Any) -> Observation:
    """Also makes the engine's spans children of the request's."""
    current = rpc.current_rpc.get()
    method = current.method.lstrip("/")
    seen = Observation.begin("grpc", method, current.request_id, current.trace_headers)
    rpc.current_rpc.set(replace(current, trace_headers=trace_headers(seen.span)))
    model = getattr(request, "model", "") or getattr(request, "model_name", "")
    if model:
        seen.attributes[semconv.GEN_AI_REQUEST_MODEL] = model[:MODEL_CHARACTERS]
    return seen


def _note_usage(seen: Observation, message: Any, context: Any) -> None:
    """Sets usage on the span, and as a trailer for proxies that do not read the messages."""
    counted = counted_of(message)
    if counted is not None:
        seen.attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] = counted.prompt_tokens
        seen.attributes[semconv.GEN_AI_USAGE_OUTPUT_TOKENS] = counted.completion_tokens
        context.set_trailing_metadata((usage_field(counted),))


def _end(seen: Observation, failure: BaseException | None) -> None:
    known = failure if isinstance(failure, errors.AutoGLMError) else None
    outcome = outcome_of(failure)
    code = known.grpc_status if known else ("OK" if failure is None else outcome.upper())
    seen.end(outcome, code, known.message if known else "")
