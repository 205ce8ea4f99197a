"""The Open Inference Protocol v2 over gRPC, with Triton's ModelStreamInfer.

Validates with the shared validator, calls the engine, responds in tensors. Registered by `app`.
Both `tritonclient` and `kserve` read outputs from `raw_output_contents`, so that is where they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from autoglm.common import errors, status
from autoglm.common.status import TokenUsage, usage_field
from autoglm.inference.engine import Engine
from autoglm.inference.oip import responses
from autoglm.inference.oip.request import TEXT_OUTPUT, EngineInput, of_grpc
from autoglm.inference.oip.responses import DATATYPE, SHAPE, Pacer
from autoglm.inference.requests import begin, current_call, find
from autoglm.inference.servicers.interceptor import info_of
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1 import open_inference_pb2_grpc
from autoglm.validation.oip import LENGTH_BYTES, TEXT_INPUT

FINAL = "triton_final_response"
EXTENSIONS = ("model_stream_infer",)


class OipServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """`engine` raises an AutoGLMError while there is none."""

    def __init__(
        self, engine: Callable[[], Engine], ready: Callable[[], bool], pace: Pacer | None = None
    ) -> None:
        self._engine = engine
        self._ready = ready
        self._pace = pace

    async def ServerLive(
        self, request: oip.ServerLiveRequest, context: Any
    ) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: oip.ServerReadyRequest, context: Any
    ) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self._ready())

    async def ServerMetadata(
        self, request: oip.ServerMetadataRequest, context: Any
    ) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(
            name=responses.SERVER_NAME,
            version=responses.server_version(),
            extensions=EXTENSIONS,
        )

    async def ModelReady(
        self, request: oip.ModelReadyRequest, context: Any
    ) -> oip.ModelReadyResponse:
        """Respond false for an unknown model, as the gateway does."""
        ready = self._ready() and find(self._engine(), request.name) is not None
        return oip.ModelReadyResponse(ready=ready)

    async def ModelMetadata(
        self, request: oip.ModelMetadataRequest, context: Any
    ) -> oip.ModelMetadataResponse:
        model = responses.described(self._engine(), request.name)
        tensor = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=model.name,
            platform=model.engine,
            inputs=(tensor(name=TEXT_INPUT, datatype=DATATYPE, shape=SHAPE),),
            outputs=(tensor(name=TEXT_OUTPUT, datatype=DATATYPE, shape=SHAPE),),
        )

    async def ModelInfer(
        self, request: oip.ModelInferRequest, context: Any
    ) -> oip.ModelInferResponse:
        engine = self._engine()
        engine_input = _engine_request(engine, request, streaming=False)
        piece = await responses.whole(engine, engine_input, current_call())
        _note_usage(context, piece.usage)
        return response(request, piece.text)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[oip.ModelInferRequest], context: Any
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        """Respond in the order of requests; a rejected one leaves the stream open for the next."""
        counted: TokenUsage | None = None
        async for request in requests:
            try:
                engine = self._engine()
                engine_input = _engine_request(engine, request, streaming=True)
                found = responses.pieces(engine, engine_input, current_call(), self._pace)
                async with aclosing(found) as pieces:
                    async for piece in pieces:
                        if piece.usage is not None:
                            counted = piece.usage.after(counted)
                            _note_usage(context, counted)
                        part = response(request, piece.text)
                        part.parameters[FINAL].bool_param = piece.is_final
                        yield oip.ModelStreamInferResponse(infer_response=part)
            except errors.AutoGLMError as error:
                # Only a status lets the caller, such as the gateway, retry on another pod.
                if error.retryable:
                    raise
                yield rejection(request, error)


def _note_usage(context: Any, counted: TokenUsage | None) -> None:
    """Set usage as a trailer, since the protocol's messages have no field for it."""
    if counted is not None:
        context.set_trailing_metadata((usage_field(counted),))


def response(request: oip.ModelInferRequest, text: str) -> oip.ModelInferResponse:
    value = text.encode()
    tensor = oip.ModelInferResponse.InferOutputTensor
    return oip.ModelInferResponse(
        model_name=request.model_name,
        id=request.id,
        outputs=(tensor(name=TEXT_OUTPUT, datatype=DATATYPE, shape=SHAPE),),
        raw_output_contents=(len(value).to_bytes(LENGTH_BYTES, "little") + value,),
    )


def rejection(
    request: oip.ModelInferRequest, error: errors.AutoGLMError
) -> oip.ModelStreamInferResponse:
    """Return an error that names the request in its text too, as Triton's client has that alone."""
    whose = f"request {request.id!r:.80}: " if request.id else ""
    message = oip.ModelStreamInferResponse(
        error_message=f"{whose}{error.reason}: {status.visible_message(error)}",
        infer_response=oip.ModelInferResponse(model_name=request.model_name, id=request.id),
    )
    message.infer_response.parameters[FINAL].bool_param = True
    return message


def _engine_request(
    engine: Engine, request: oip.ModelInferRequest, *, streaming: bool
) -> EngineInput:
    begin(engine, info_of(request, streaming=streaming))
    return responses.engine_request_of(engine, of_grpc(request))
