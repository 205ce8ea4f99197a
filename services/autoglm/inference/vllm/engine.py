"""vLLM as an `autoglm.inference.engine.Engine`: the parts put together. Built by `launch`.

The load comes from vLLM's scheduler and from the requests that this process has submitted: the
scheduler reports after each step, so a request just submitted is not in its figures yet; the output
processor knows it at once.

`hold` keeps the tokens of a stream in vLLM's front end while they are not read. For every token of
every stream vLLM makes a chunk, and merges it with the one that still waits to be taken: a fifth of
the front end's work with 32 streams. Its `stream_interval` makes none until there are so many
tokens; here that number follows the reader instead. Tokens are detokenised and checked for stop
strings all the same, and the end of a request is never held. Streams whose parsers must see each
token by itself are not changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest
from vllm.v1.metrics.loggers import StatLoggerBase

from autoglm import v1
from autoglm.inference.engine import AsgiApp, EngineLoad, EngineRequest
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.vllm.chat import chat_results
from autoglm.inference.vllm.chat.chat import ChatCompletions
from autoglm.inference.vllm.exceptions import EngineStopped
from autoglm.inference.vllm.failure.postmortem import EngineLog, sentence
from autoglm.inference.vllm.kv.events import KvEvents
from autoglm.inference.vllm.models import describe_adapter
from autoglm.inference.vllm.replay.engine_client import StepwiseCollector
from autoglm.inference.vllm.replay.rest_replay import RestReplay
from autoglm.inference.vllm.request_ids import engine_ids, stream_ids
from autoglm.inference.vllm.runtime import Runtime, http_request
from autoglm.inference.vllm.text.generation import Generation
from autoglm.inference.vllm.text.labels import Labels
from autoglm.inference.vllm.tokenization import Tokenization

_LIVENESS_SECONDS = 0.25
# Nothing runs any more when the engine is closed; by default its processes are given 5 s to end.
_LAST_SECONDS = 1.0
# More tokens than any context has.
_NEVER = 1 << 40


class SchedulerMeter(StatLoggerBase):  # type: ignore[misc]  # vLLM is not followed by mypy
    """The last figures of one engine's scheduler."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.running = 0
        self.kv_cache_usage = 0.0

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs
            self.kv_cache_usage = scheduler_stats.kv_cache_usage

    def log_engine_initialized(self) -> None:
        """Nothing to say; vLLM's own loggers do."""


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Vectors(msgspec.Struct):
    model: str
    data: list[_Vector]
    usage: chat_results.UsageCounts


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
        self._chat = ChatCompletions(runtime)
        self._tokenization = Tokenization(runtime)
        self._labels = Labels(runtime, self._tokenization)

    def models(self) -> Sequence[v1.Model]:
        model = self._runtime.model
        adapters = self._runtime.adapters.items()
        return [model, *(describe_adapter(model, name, a.lora_path) for name, a in adapters)]

    def load(self) -> EngineLoad:
        llm, meters = self._runtime.llm, self._meters
        states = llm.output_processor.request_states
        unfinished = len(states)
        running = min(unfinished, sum(m.running for m in meters))
        # The scheduler reports nothing after an abort: its last figure may be of requests now gone.
        usage = sum(m.kv_cache_usage for m in meters) / len(meters) if unfinished else 0.0
        cache = llm.vllm_config.cache_config
        tokens = sum(s.prompt_len + s.stats.num_generation_tokens for s in states.values())
        return EngineLoad(
            running=running,
            waiting=unfinished - running,
            kv_cache_usage=usage,
            tokens_in_flight=tokens,
            max_num_seqs=llm.vllm_config.scheduler_config.max_num_seqs * len(meters),
            num_kv_blocks=cache.num_gpu_blocks or 0,
            kv_block_size=cache.block_size or 0,
            adapters=tuple(self._runtime.adapters),
        )

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
        """Through the class that serves vLLM's /v1/embeddings."""
        with self._runtime.translating("texts"):
            self._runtime.find(request.model)
            self._runtime.require("embed")
            wanted = EmbeddingCompletionRequest(
                model=request.model,
                input=list(request.texts),
                dimensions=request.dimensions if request.HasField("dimensions") else None,
                encoding_format="float",
            )
            response = await self._runtime.app.state.serving_embedding(wanted, http_request(call))
            found = msgspec.json.decode(response.body, type=_Vectors)
            return v1.EmbedResponse(
                model=found.model,
                embeddings=[v1.Embedding(index=v.index, values=v.embedding) for v in found.data],
                usage=chat_results.usage(found.usage),
            )

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
        for state in self._running_states(request_id):
            # All tokens up to now have been in a chunk.
            if state.stream_interval == 1:
                state.sent_tokens_offset = state.detokenizer.num_output_tokens()
                # The first token of a stream is not held: it is sent at once.
                if state.sent_tokens_offset:
                    state.stream_interval = _NEVER

    def release(self, request_id: str) -> None:
        """Make one chunk of what was held, and one for each token from now on."""
        for state in self._running_states(request_id):
            if state.stream_interval != _NEVER:
                continue
            state.stream_interval = 1
            held = state.detokenizer.output_token_ids[state.sent_tokens_offset :]
            if held:
                state.queue.put(state.make_request_output(held, None, None, None))

    def _running_states(self, request_id: str) -> Iterator[Any]:
        """vLLM's `RequestState` of each completion that still runs and may be held."""
        processor = self._runtime.llm.output_processor
        for name in stream_ids(request_id):
            for internal in processor.external_req_ids.get(name, ()):
                state = processor.request_states[internal]
                if not isinstance(state.queue, StepwiseCollector):
                    yield state

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
        # vLLM closes its ZeroMQ sockets and forgets the context; ending that waits for open ones.
        resources = llm.engine_core.resources
        names = ("input", "output", "first_req_send", "first_req_rcv", "stats_update")
        sockets = [getattr(resources, f"{name}_socket", None) for name in names]
        if all(socket is None or socket.closed for socket in sockets):
            resources.ctx.term()
        self._log.close()
