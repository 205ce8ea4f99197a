"""A scripted `Inference` server in process, for tests of programs that use a client.

    with FakeServer(text="Hello there.") as server, Client(server.address) as client:
        assert client.chat("...").choices[0].message.content == "Hello there."

It responds to every request with `text`, word by word in streams, after failing one call with each
of `failures`. It generates nothing and validates nothing. Needs a core install only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from autoglm import v1
from autoglm.common import errors, status
from autoglm.v1.inference_pb2_grpc import InferenceServicer, add_InferenceServicer_to_server


@dataclass(frozen=True, slots=True)
class Received:
    """A received request; `seconds_left` until its deadline, infinite without one."""

    method: str
    request: Message
    metadata: dict[str, str]
    seconds_left: float


@dataclass
class FakeServer:
    """The script of the server, and the requests that it has received."""

    text: str = "Hello there."
    model: str = "fake"
    failures: list[errors.AutoGLMError] = field(default_factory=list)
    """Errors raised before anything is sent, one a call, in this order."""
    break_with: errors.AutoGLMError | None = None
    """Error that ends every stream after its first chunk."""
    endless: bool = False
    """Whether streams stay open after the text until the client cancels."""
    credentials: grpc.ServerCredentials | None = None
    received: list[Received] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(8))
        add_InferenceServicer_to_server(_Servicer(self), self._server)
        if self.credentials:
            port = self._server.add_secure_port("localhost:0", self.credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"{'localhost' if self.credentials else '127.0.0.1'}:{port}"
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop(None).wait()

    def begin(self, method: str, request: Message, context: Any) -> str:
        """Record the request and return its id, or abort the call with the scripted error."""
        metadata = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        # gRPC represents no deadline as a time in the very distant future.
        left = context.time_remaining()
        seconds_left = left if left < 1e9 else math.inf
        self.received.append(Received(method, request, metadata, seconds_left))
        request_id = metadata.get(status.REQUEST_ID, "")
        if self.failures:
            _abort(context, self.failures.pop(0), request_id)
        return request_id

    def pieces(self, context: Any, request_id: str) -> Iterator[str]:
        context.add_callback(self.cancelled.set)
        words = self.text.split(" ")
        for number, word in enumerate(words):
            yield word if number == 0 else f" {word}"
            if self.break_with:
                _abort(context, self.break_with, request_id)
        if self.endless:
            self.cancelled.wait(timeout=60)

    def usage(self) -> v1.Usage:
        return v1.Usage(prompt_tokens=3, completion_tokens=len(self.text.split(" ")))


def _abort(context: Any, error: errors.AutoGLMError, request_id: str) -> None:
    response = status.to_grpc(error, request_id)
    context.set_trailing_metadata(response.trailers)
    context.abort(response.code, response.message)


class _Servicer(InferenceServicer):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def Generate(self, request: v1.GenerateRequest, context: Any) -> v1.GenerateResponse:
        request_id = self._server.begin("Generate", request, context)
        completion = v1.Completion(text=self._server.text, finish_reason=v1.FINISH_REASON_STOP)
        return v1.GenerateResponse(
            id=request_id,
            model=request.model,
            completions=[completion],
            usage=self._server.usage(),
        )

    def GenerateStream(
        self, request: v1.GenerateRequest, context: Any
    ) -> Iterator[v1.GenerateChunk]:
        request_id = self._server.begin("GenerateStream", request, context)
        for piece in self._server.pieces(context, request_id):
            yield v1.GenerateChunk(id=request_id, text=piece)
        yield v1.GenerateChunk(
            id=request_id, finish_reason=v1.FINISH_REASON_STOP, usage=self._server.usage()
        )

    def Chat(self, request: v1.ChatRequest, context: Any) -> v1.ChatResponse:
        request_id = self._server.begin("Chat", request, context)
        message = v1.ChatMessage(role="assistant", content=self._server.text)
        choice = v1.ChatChoice(message=message, finish_reason=v1.FINISH_REASON_STOP)
        return v1.ChatResponse(
            id=request_id, model=request.model, choices=[choice], usage=self._server.usage()
        )

    def ChatStream(self, request: v1.ChatRequest, context: Any) -> Iterator[v1.ChatChunk]:
        request_id = self._server.begin("ChatStream", request, context)
        yield v1.ChatChunk(id=request_id, delta=v1.ChatMessage(role="assistant"))
        for piece in self._server.pieces(context, request_id):
            yield v1.ChatChunk(id=request_id, delta=v1.ChatMessage(content=piece))
        yield v1.ChatChunk(
            id=request_id, finish_reason=v1.FINISH_REASON_STOP, usage=self._server.usage()
        )

    def Embed(self, request: v1.EmbedRequest, context: Any) -> v1.EmbedResponse:
        self._server.begin("Embed", request, context)
        vectors = [v1.Embedding(index=i, values=[1.0]) for i, _ in enumerate(request.texts)]
        return v1.EmbedResponse(model=request.model, embeddings=vectors)

    def Predict(self, request: v1.PredictRequest, context: Any) -> v1.PredictResponse:
        request_id = self._server.begin("Predict", request, context)
        share = 1 / max(1, len(request.labels))
        labels = [v1.LabelScore(label=label, score=share) for label in request.labels]
        output = request.labels[0] if request.labels else self._server.text
        return v1.PredictResponse(
            id=request_id, model_name=request.model_name, output=output, labels=labels
        )

    def Tokenize(self, request: v1.TokenizeRequest, context: Any) -> v1.TokenizeResponse:
        self._server.begin("Tokenize", request, context)
        return v1.TokenizeResponse(token_ids=list(request.text.encode()), max_model_len=2048)

    def ListModels(self, request: v1.ListModelsRequest, context: Any) -> v1.ListModelsResponse:
        self._server.begin("ListModels", request, context)
        return v1.ListModelsResponse(models=[self._model()] if self._server.model else [])

    def GetModel(self, request: v1.GetModelRequest, context: Any) -> v1.GetModelResponse:
        request_id = self._server.begin("GetModel", request, context)
        if request.name != self._server.model:
            message = f"no model {request.name!r}; there is {self._server.model!r}"
            _abort(context, errors.ModelNotFound(message), request_id)
        return v1.GetModelResponse(model=self._model())

    def _model(self) -> v1.Model:
        return v1.Model(
            name=self._server.model,
            max_model_len=2048,
            tasks=["generate", "chat"],
            engine="fake",
            ready_endpoints=1,
        )
