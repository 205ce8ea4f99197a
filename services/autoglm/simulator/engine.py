"""The echo engine: returns the words of the prompt, at a chosen speed, without a model.

For tests, demos of the control plane and load tests; it never replaces a test against a real
engine. `start` is its way in, as `autoglm.inference.vllm.start` is vLLM's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import AsgiApp, EngineLoad, EngineRequest
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.settings import EchoSettings
from autoglm.simulator import prompts, tokenizer
from autoglm.simulator.completion import logprob
from autoglm.simulator.core import EchoCore
from autoglm.simulator.openai import openai_app

_FOUND, _MISSED = -0.5, -5.0


class LoadCollector(Collector):
    """Exports the echo engine's load under vLLM's metric names."""

    def __init__(self, model_name: str, core: EchoCore) -> None:
        self._labels = (model_name, "0")
        self._core = core

    def describe(self) -> Iterable[Metric]:
        # Claims no names, so that several engines can be in one registry.
        return ()

    def collect(self) -> Iterable[Metric]:
        load = self._core.load()
        yield self._gauge("num_requests_running", "Requests being worked on.", load.running)
        yield self._gauge("num_requests_waiting", "Requests waiting.", load.waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of blocks in use.", load.kv_cache_usage)
        labels = ["model_name", "engine", "block_size", "num_gpu_blocks"]
        info = GaugeMetricFamily("vllm:cache_config_info", "The cache's size.", labels=labels)
        info.add_metric([*self._labels, str(load.kv_block_size), str(load.num_kv_blocks)], 1)
        yield info
        tokens = CounterMetricFamily(
            "vllm:generation_tokens", "Output tokens.", labels=["model_name", "engine"]
        )
        tokens.add_metric(self._labels, self._core.generated_tokens)
        yield tokens

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=["model_name", "engine"])
        gauge.add_metric(self._labels, value)
        return gauge


class EchoEngine:
    def __init__(self, settings: EchoSettings) -> None:
        self._core = EchoCore(settings)
        self._has_feed = settings.kv_events
        self._model = v1.Model(
            name=settings.model_name,
            aliases=settings.aliases,
            max_model_len=self._core.capacity,
            max_token_bytes=tokenizer.MAX_TOKEN_BYTES,
            tasks=("generate", "chat", "classify", "tokenize"),
            uri="echo",
            engine="echo",
            created=int(time.time()),
            resumable=True,
        )
        self._collector = LoadCollector(self._model.name, self._core)
        REGISTRY.register(self._collector)

    def models(self) -> Sequence[v1.Model]:
        return (self._model,)

    def load(self) -> EngineLoad:
        return self._core.load()

    def kv_feed(self) -> KvFeed | None:
        return self._core.kv_feed if self._has_feed else None

    async def generate(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> v1.GenerateResponse:
        task = prompts.generate_task(request, self._core.capacity)
        async with aclosing(self._core.run(task, call.request_id)) as chunks:
            response = await _whole_completion(chunks, self._model.name)
        if request.sampling_params.HasField("prompt_logprobs"):
            wanted = request.sampling_params.prompt_logprobs
            response.prompt_logprobs.extend(logprob(i, wanted) for i in task.prompt[1:])
        return response

    async def generate_stream(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> AsyncIterator[v1.GenerateChunk]:
        task = prompts.generate_task(request, self._core.capacity)
        async with aclosing(self._core.run(task, call.request_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def chat(self, request: v1.ChatRequest, call: EngineRequest) -> v1.ChatResponse:
        task = prompts.chat_task(request, self._core.capacity)
        async with aclosing(self._core.run(task, call.request_id)) as chunks:
            response = await _whole_completion(chunks, self._model.name)
        choices = [
            v1.ChatChoice(
                index=c.index,
                message=v1.ChatMessage(role="assistant", content=c.text),
                logprobs=c.logprobs,
                finish_reason=c.finish_reason,
                stop_reason=c.stop_reason,
            )
            for c in response.completions
        ]
        return v1.ChatResponse(
            id=response.id,
            model=response.model,
            choices=choices,
            usage=response.usage,
            timing=response.timing,
        )

    async def chat_stream(
        self, request: v1.ChatRequest, call: EngineRequest
    ) -> AsyncIterator[v1.ChatChunk]:
        task = prompts.chat_task(request, self._core.capacity)
        begun = set(task.resumed)
        async with aclosing(self._core.run(task, call.request_id)) as chunks:
            async for chunk in chunks:
                is_first = chunk.index not in begun
                begun.add(chunk.index)
                yield _chat_chunk(chunk, self._model.name, is_first=is_first)

    async def embed(self, request: v1.EmbedRequest, call: EngineRequest) -> v1.EmbedResponse:
        raise errors.Unimplemented(f"{self._model.name!r} generates text and makes no embeddings")

    async def tokenize(
        self, request: v1.TokenizeRequest, call: EngineRequest
    ) -> v1.TokenizeResponse:
        chat = request.WhichOneof("input") == "chat"
        opening = v1.ChatRequest(messages=request.chat.messages)
        ids = tokenizer.encode(prompts.render(opening) if chat else request.text)
        tokens = [tokenizer.decode([i]) for i in ids] if request.return_tokens else []
        return v1.TokenizeResponse(token_ids=ids, max_model_len=self._core.capacity, tokens=tokens)

    async def label_logprobs(
        self, request: v1.PredictRequest, call: EngineRequest
    ) -> Sequence[float]:
        """Return high values for labels that the text contains; of several, for the shorter."""
        text = request.input_data.lower()
        return [
            (_FOUND if label.lower() in text else _MISSED) - 0.1 * len(tokenizer.encode(label))
            for label in request.labels
        ]

    def is_running(self, request_id: str) -> bool:
        return self._core.is_running(request_id)

    def hold(self, request_id: str) -> None:
        """Do nothing: merging costs nothing here."""

    def release(self, request_id: str) -> None:
        """Do nothing: nothing is held."""

    async def abort(self, request_ids: Sequence[str]) -> Sequence[str]:
        return self._core.abort(request_ids)

    def http_app(self) -> AsgiApp:
        return openai_app(self, self._collector)

    async def wait_dead(self) -> str:
        return await self._core.wait_dead()

    async def close(self) -> None:
        self._core.die("the engine was closed")
        REGISTRY.unregister(self._collector)


async def start(settings: EchoSettings) -> EchoEngine:
    """Return a running engine."""
    if settings.fault and settings.fault.kind == "start":
        raise errors.EngineDead("the echo engine is configured not to start")
    return EchoEngine(settings)


def _chat_chunk(chunk: v1.GenerateChunk, model: str, *, is_first: bool) -> v1.ChatChunk:
    """Return the chat's form of a chunk; the first of each completion carries the role."""
    role = "assistant" if is_first else ""
    made = v1.ChatChunk(
        id=chunk.id,
        model=model,
        index=chunk.index,
        delta=v1.ChatMessage(role=role, content=chunk.text),
        logprobs=chunk.logprobs,
        finish_reason=chunk.finish_reason,
        stop_reason=chunk.stop_reason,
        token_ids=chunk.token_ids,
    )
    if chunk.HasField("usage"):
        made.usage.CopyFrom(chunk.usage)
        made.timing.CopyFrom(chunk.timing)
    return made


async def _whole_completion(
    chunks: AsyncIterator[v1.GenerateChunk], model: str
) -> v1.GenerateResponse:
    response = v1.GenerateResponse(model=model)
    found: dict[int, v1.Completion] = {}
    async for chunk in chunks:
        completion = found.setdefault(chunk.index, v1.Completion(index=chunk.index))
        completion.text += chunk.text
        completion.token_ids.extend(chunk.token_ids)
        completion.logprobs.extend(chunk.logprobs)
        completion.finish_reason = chunk.finish_reason
        completion.stop_reason = chunk.stop_reason
        response.id = chunk.id
        if chunk.HasField("usage"):
            response.usage.CopyFrom(chunk.usage)
            response.timing.CopyFrom(chunk.timing)
    response.completions.extend(found[index] for index in sorted(found))
    return response
