"""A scripted pod in process: Inference, the Open Inference Protocol and Worker, on one event loop.

    async with FakePod(model="glm") as pod:
        gateway = ... endpoint=(pod.url,)

It responds with `text` word by word, reports the configured load, and can reject requests, break,
stall or stop reporting. It generates nothing. For tests of gateways.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from autoglm import v1
from autoglm.common import errors, rpc
from autoglm.common.status import USAGE_TRAILER, write_usage
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1.inference_pb2_grpc import InferenceServicer, add_InferenceServicer_to_server
from autoglm.v1.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from autoglm.v1.worker_pb2_grpc import WorkerServicer, add_WorkerServicer_to_server

LOAD_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Received:
    """A received request. `seconds_left` is None without a deadline."""

    method: str
    request: Message
    metadata: dict[str, str]
    seconds_left: float | None


@dataclass
class FakePod:
    """The script of the pod, and the requests that it has received."""

    model: str = "fake"
    aliases: tuple[str, ...] = ()
    text: str = "Hello there."
    http_port: int = 0
    max_model_len: int = 2048
    max_num_seqs: int = 8
    failures: list[errors.AutoGLMError] = field(default_factory=list)
    """Errors raised before the first chunk, one a request, in this order."""
    break_with: errors.AutoGLMError | None = None
    """Error that ends every stream after its first chunk."""
    running: int = 0
    waiting: int = 0
    draining: bool = False
    kv_events: bool = False
    """Whether its load reports announce KV events; it sends none."""
    stopping: int = 0
    """Number of streams that end with CANCELLED without a chunk, as by a server that stops."""
    silent: bool = False
    """Whether it stops sending load reports, while everything else works."""
    open_gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear it to stall streams after their first chunk, and unary responses."""
    received: list[Received] = field(default_factory=list)
    cancelled: int = 0
    """Requests that clients cancelled."""
    load_intervals: list[float] = field(default_factory=list)
    """The minimum interval of each stream of load reports, in seconds."""
    port: int = 0

    def __post_init__(self) -> None:
        self.open_gate.set()
        self._changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start on a free port, after a `stop` on the same port."""
        server = rpc.server(in_one_piece=True)
        self.serve_on(server)
        self.port = rpc.bind(server, f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    def serve_on(self, server: grpc.aio.Server) -> None:
        add_InferenceServicer_to_server(_Inference(self), server)
        add_GRPCInferenceServiceServicer_to_server(_OpenInference(self), server)
        add_WorkerServicer_to_server(_Worker(self), server)

    async def stop(self, grace: float = 0) -> None:
        """Stop; with a grace of 0 seconds connections break, as when a process is killed."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace)

    def update(self, **changes: Any) -> None:
        """Change attributes and send a load report at once."""
        for name, value in changes.items():
            setattr(self, name, value)
        self._changed.set()

    def load(self) -> v1.WatchLoadResponse:
        return v1.WatchLoadResponse(
            running=self.running,
            waiting=self.waiting,
            draining=self.draining,
            max_num_seqs=self.max_num_seqs,
            http_port=self.http_port,
            kv_events=self.kv_events,
        )

    async def wait_changed(self) -> None:
        """Wait until `update`, or until the next load report is due."""
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def receive(self, request: Message, context: Any) -> None:
        """Record the request. Raises the scripted error."""
        current = rpc.current_rpc.get()
        metadata = {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}
        left = context.time_remaining()
        self.received.append(Received(current.method, request, metadata, left))
        if self.draining:
            raise errors.ShuttingDown("the pod is shutting down")
        if self.failures:
            raise self.failures.pop(0)

    async def pieces(self) -> AsyncIterator[str]:
        try:
            for number, word in enumerate(self.text.split(" ")):
                yield word if number == 0 else f" {word}"
                if self.break_with is not None:
                    raise self.break_with
                await self.open_gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def whole(self) -> str:
        try:
            await self.open_gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.text

    def trailers(self) -> tuple[tuple[str, str], ...]:
        counted = self.usage()
        written = write_usage(counted.prompt_tokens, counted.completion_tokens, ("stop",))
        return (("autoglm-fake", "yes"), (USAGE_TRAILER, written))

    def usage(self) -> v1.Usage:
        return v1.Usage(prompt_tokens=3, completion_tokens=len(self.text.split(" ")))


class _Inference(InferenceServicer):
    def __init__(self, pod: FakePod) -> None:
        self._pod = pod

    async def Generate(self, request: v1.GenerateRequest, context: Any) -> v1.GenerateResponse:
        self._pod.receive(request, context)
        context.set_trailing_metadata((*self._pod.trailers(), ("secret", "no")))
        completion = v1.Completion(
            text=await self._pod.whole(), finish_reason=v1.FINISH_REASON_STOP
        )
        return v1.GenerateResponse(
            model=request.model, completions=[completion], usage=self._pod.usage()
        )

    async def GenerateStream(
        self, request: v1.GenerateRequest, context: Any
    ) -> AsyncIterator[v1.GenerateChunk]:
        self._pod.receive(request, context)
        if self._pod.stopping:
            self._pod.stopping -= 1
            context.set_code(grpc.StatusCode.CANCELLED)
            return
        context.set_trailing_metadata(self._pod.trailers())
        async for piece in self._pod.pieces():
            yield v1.GenerateChunk(text=piece)
        yield v1.GenerateChunk(finish_reason=v1.FINISH_REASON_STOP, usage=self._pod.usage())

    async def Chat(self, request: v1.ChatRequest, context: Any) -> v1.ChatResponse:
        self._pod.receive(request, context)
        message = v1.ChatMessage(role="assistant", content=await self._pod.whole())
        choice = v1.ChatChoice(message=message, finish_reason=v1.FINISH_REASON_STOP)
        return v1.ChatResponse(model=request.model, choices=[choice], usage=self._pod.usage())

    async def ChatStream(
        self, request: v1.ChatRequest, context: Any
    ) -> AsyncIterator[v1.ChatChunk]:
        self._pod.receive(request, context)
        async for piece in self._pod.pieces():
            yield v1.ChatChunk(delta=v1.ChatMessage(content=piece))
        yield v1.ChatChunk(finish_reason=v1.FINISH_REASON_STOP, usage=self._pod.usage())

    async def Tokenize(self, request: v1.TokenizeRequest, context: Any) -> v1.TokenizeResponse:
        self._pod.receive(request, context)
        return v1.TokenizeResponse(token_ids=[1, 2, 3], max_model_len=self._pod.max_model_len)

    async def ListModels(
        self, request: v1.ListModelsRequest, context: Any
    ) -> v1.ListModelsResponse:
        model = v1.Model(
            name=self._pod.model,
            aliases=self._pod.aliases,
            max_model_len=self._pod.max_model_len,
            engine="fake",
        )
        return v1.ListModelsResponse(models=[model])


class _OpenInference(GRPCInferenceServiceServicer):
    def __init__(self, pod: FakePod) -> None:
        self._pod = pod

    async def ModelInfer(
        self, request: oip.ModelInferRequest, context: Any
    ) -> oip.ModelInferResponse:
        self._pod.receive(request, context)
        return _infer_response(request, await self._pod.whole())

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Any
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        async for request in request_iterator:
            self._pod.receive(request, context)
            async for piece in self._pod.pieces():
                yield oip.ModelStreamInferResponse(infer_response=_infer_response(request, piece))


class _Worker(WorkerServicer):
    def __init__(self, pod: FakePod) -> None:
        self._pod = pod

    async def WatchLoad(
        self, request: v1.WatchLoadRequest, context: Any
    ) -> AsyncIterator[v1.WatchLoadResponse]:
        self._pod.load_intervals.append(request.min_interval_seconds)
        while True:
            if not self._pod.silent:
                yield self._pod.load()
            await self._pod.wait_changed()


def _infer_response(request: oip.ModelInferRequest, text: str) -> oip.ModelInferResponse:
    output = oip.ModelInferResponse.InferOutputTensor(
        name="text_output",
        datatype="BYTES",
        shape=[1],
        contents=oip.InferTensorContents(bytes_contents=[text.encode()]),
    )
    return oip.ModelInferResponse(model_name=request.model_name, id=request.id, outputs=[output])
