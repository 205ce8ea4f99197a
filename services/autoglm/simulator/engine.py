"""The echo engine: returns the words of the prompt, at a chosen speed, without a model.

For tests, demos of the control plane and load tests; it never replaces a test against a real
engine. `start` is its way in, as `autoglm.inference.vllm.start` is vLLM's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from prometheus_client import REGISTRY

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import AsgiApp, EngineLoad, EngineRequest
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.settings import EchoSettings
from autoglm.simulator import prompts, responses, tokenizer
from autoglm.simulator.completion import logprob
from autoglm.simulator.core import EchoCore
from autoglm.simulator.openai import LoadCollector, openai_app

_FOUND, _MISSED = -0.5, -5.0


class EchoEngine:
    def __init__(self, settings: EchoSettings) -> None:
        self._core = EchoCore(settings)
        self._has_feed = settings.kv_events
        self._model = _described(settings, self._core.capacity)
        self._collector = LoadCollector(self._model.name, self._core.load)
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
            response = await responses.whole_completion(chunks, self._model.name)
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
            return responses.chat_response(
                await responses.whole_completion(chunks, self._model.name)
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
                yield responses.chat_chunk(chunk, self._model.name, is_first=is_first)

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


def _described(settings: EchoSettings, capacity: int) -> v1.Model:
    return v1.Model(
        name=settings.model_name,
        aliases=settings.aliases,
        max_model_len=capacity,
        max_token_bytes=tokenizer.MAX_TOKEN_BYTES,
        tasks=("generate", "chat", "classify", "tokenize"),
        uri="echo",
        engine="echo",
        created=int(time.time()),
        resumable=True,
    )
