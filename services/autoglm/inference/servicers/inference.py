"""autoglm.v1.Inference on an engine: validates, calls the engine, paces its streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.gather import Pacer
from autoglm.inference.pod import Pod
from autoglm.inference.prediction import predict
from autoglm.inference.requests import begin, check, current_call, find
from autoglm.inference.servicers.interceptor import info_of
from autoglm.v1 import inference_pb2_grpc


class InferenceServicer(inference_pb2_grpc.InferenceServicer):
    def __init__(self, pod: Pod, pace: Pacer) -> None:
        self._pod = pod
        self._pace = pace

    async def Generate(self, request: v1.GenerateRequest, context: Any) -> v1.GenerateResponse:
        engine = self._pod.engine()
        begin(engine, info_of(request))
        return await engine.generate(request, current_call())

    def GenerateStream(
        self, request: v1.GenerateRequest, context: Any
    ) -> AsyncIterator[v1.GenerateChunk]:
        engine = self._pod.engine()
        begin(engine, info_of(request, streaming=True))
        call = current_call()
        return self._pace(engine.generate_stream(request, call), engine, call)

    async def Chat(self, request: v1.ChatRequest, context: Any) -> v1.ChatResponse:
        engine = self._pod.engine()
        begin(engine, info_of(request))
        return await engine.chat(request, current_call())

    def ChatStream(self, request: v1.ChatRequest, context: Any) -> AsyncIterator[v1.ChatChunk]:
        engine = self._pod.engine()
        begin(engine, info_of(request, streaming=True))
        call = current_call()
        return self._pace(engine.chat_stream(request, call), engine, call)

    async def Embed(self, request: v1.EmbedRequest, context: Any) -> v1.EmbedResponse:
        engine = self._pod.engine()
        check(engine, info_of(request))
        return await engine.embed(request, current_call())

    async def Predict(self, request: v1.PredictRequest, context: Any) -> v1.PredictResponse:
        engine = self._pod.engine()
        check(engine, info_of(request))
        return await predict(engine, request, current_call())

    async def Tokenize(self, request: v1.TokenizeRequest, context: Any) -> v1.TokenizeResponse:
        engine = self._pod.engine()
        check(engine, info_of(request))
        return await engine.tokenize(request, current_call())

    async def ListModels(
        self, request: v1.ListModelsRequest, context: Any
    ) -> v1.ListModelsResponse:
        models = sorted(self._pod.engine().models(), key=lambda m: m.name)
        return v1.ListModelsResponse(models=models)

    async def GetModel(self, request: v1.GetModelRequest, context: Any) -> v1.GetModelResponse:
        engine = self._pod.engine()
        model = find(engine, request.name)
        if model is None:
            known = ", ".join(sorted(m.name for m in engine.models()))
            raise errors.ModelNotFound(f"no model {request.name!r}; there is {known}", field="name")
        return v1.GetModelResponse(model=model)
