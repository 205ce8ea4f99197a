"""vLLM as an `autoglm.inference.engine.Engine`: the parts put together. Built by `launch`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from autoglm import v1
from autoglm.inference.engine import AsgiApp, EngineLoad, EngineRequest
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.vllm.chat.chat import Chat
from autoglm.inference.vllm.embedding import Embedding
from autoglm.inference.vllm.failure.fatal import EngineStopped
from autoglm.inference.vllm.failure.postmortem import EngineLog, sentence
from autoglm.inference.vllm.kv.events import KvEvents
from autoglm.inference.vllm.load import SchedulerMeter, read_load
from autoglm.inference.vllm.models import describe_adapter
from autoglm.inference.vllm.replay.rest_replay import RestReplay
from autoglm.inference.vllm.request_ids import engine_ids, stream_ids
from autoglm.inference.vllm.runtime import Runtime
from autoglm.inference.vllm.text import holding
from autoglm.inference.vllm.text.generation import Generation
from autoglm.inference.vllm.text.labels import Labels
from autoglm.inference.vllm.tokenization import Tokenization

_LIVENESS_SECONDS = 0.25
# Nothing runs any more when the engine is closed; by default its processes are given 5 s to end.
_LAST_SECONDS = 1.0


class VllmEngine:
    """A running engine; see `autoglm.inference.engine.Engine` for what each method promises."""

    def __init__(
        self,
        runtime: Runtime,
        meters: Sequence[SchedulerMeter],
        log: EngineLog,
        kv_events: KvEvents | None = None,
    ) -> None:
        self._runtime = runtime
        self._meters = meters
        self._log = log
        self._kv_events = kv_events
        self._generation = Generation(runtime)
        self._chat = Chat(runtime)
        self._tokenization = Tokenization(runtime)
        self._labels = Labels(runtime, self._tokenization)
        self._embedding = Embedding(runtime)

    def models(self) -> Sequence[v1.Model]:
        model = self._runtime.model
        adapters = self._runtime.adapters.items()
        return [model, *(describe_adapter(model, name, a.lora_path) for name, a in adapters)]

    def load(self) -> EngineLoad:
        return read_load(self._runtime.llm, self._meters, tuple(self._runtime.adapters))

    def kv_feed(self) -> KvFeed | None:
        return self._kv_events.feed if self._kv_events else None

    async def generate(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> v1.GenerateResponse:
        return await self._generation.complete(request, call)

    def generate_stream(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> AsyncIterator[v1.GenerateChunk]:
        return self._generation.stream(request, call)

    async def chat(self, request: v1.ChatRequest, call: EngineRequest) -> v1.ChatResponse:
        return await self._chat.complete(request, call)

    def chat_stream(
        self, request: v1.ChatRequest, call: EngineRequest
    ) -> AsyncIterator[v1.ChatChunk]:
        return self._chat.stream(request, call)

    async def embed(self, request: v1.EmbedRequest, call: EngineRequest) -> v1.EmbedResponse:
        return await self._embedding.embed(request, call)

    async def tokenize(
        self, request: v1.TokenizeRequest, call: EngineRequest
    ) -> v1.TokenizeResponse:
        return await self._tokenization.tokenize(request, call)

    async def label_logprobs(
        self, request: v1.PredictRequest, call: EngineRequest
    ) -> Sequence[float]:
        return await self._labels.logprobs(request, call)

    def is_running(self, request_id: str) -> bool:
        live = self._runtime.llm.output_processor.external_req_ids
        return any(name in live for name in stream_ids(request_id))

    def hold(self, request_id: str) -> None:
        for state in holding.states(self._runtime.llm.output_processor, request_id):
            holding.hold(state)

    def release(self, request_id: str) -> None:
        for state in holding.states(self._runtime.llm.output_processor, request_id):
            holding.release(state)

    async def abort(self, request_ids: Sequence[str]) -> Sequence[str]:
        live = tuple(self._runtime.llm.output_processor.external_req_ids)
        found = {request_id: engine_ids(request_id, live) for request_id in request_ids}
        await self._runtime.llm.abort([i for ids in found.values() for i in ids])
        return [request_id for request_id, ids in found.items() if ids]

    def http_app(self) -> AsgiApp:
        return RestReplay(self._runtime.app, self._runtime.parses_reasoning)

    async def wait_dead(self) -> str:
        # vLLM watches its processes from a thread and sets a flag; there is nothing to await.
        while not self._runtime.llm.errored:  # noqa: ASYNC110
            await asyncio.sleep(_LIVENESS_SECONDS)
        manager = self._runtime.llm.engine_core.resources.engine_manager
        return sentence(self._log.first_failure(), manager.finished_procs() if manager else {})

    def processes(self) -> Sequence[int]:
        """Return the engine's own processes, to watch their memory or to end them in tests."""
        manager = self._runtime.llm.engine_core.resources.engine_manager
        return [p.pid for p in manager.processes] if manager else []

    async def close(self) -> None:
        llm = self._runtime.llm
        # Shutting down ends the task that would wake those who still wait for tokens.
        llm.output_processor.propagate_error(EngineStopped())
        await asyncio.to_thread(llm.shutdown, _LAST_SECONDS)
        if self._kv_events is not None:
            await self._kv_events.close()
        _end_messaging(llm.engine_core.resources)
        self._log.close()


def _end_messaging(resources: Any) -> None:
    """End the ZeroMQ context that vLLM forgets, unless that would wait for open sockets."""
    names = ("input", "output", "first_req_send", "first_req_rcv", "stats_update")
    sockets = [getattr(resources, f"{name}_socket", None) for name in names]
    if all(socket is None or socket.closed for socket in sockets):
        resources.ctx.term()
