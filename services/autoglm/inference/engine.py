"""The engine contract: what a pod requires of an engine that generates tokens.

Two engines implement it, `autoglm.inference.vllm` and `autoglm.simulator`. Requests and
results are the API's own messages, so nothing is translated twice. Engines raise
`autoglm.common.errors` only. Servicers, the HTTP port, health and draining know nothing else about
an engine.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autoglm import v1
from autoglm.inference.kv.feed import KvFeed

# ASGI 3 (https://asgi.readthedocs.io): what uvicorn serves on the HTTP port.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The model and how to serve it. None leaves a choice to the engine and the model."""

    model: str
    """A local path or a hub name."""
    served_name: str = ""
    """The name that clients request; `model` when empty."""
    aliases: tuple[str, ...] = ()
    """Other names of the same model."""
    tokenizer: str | None = None
    """A local path or a hub name, where the model does not bring its own."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    max_model_len: int | None = None
    """Tokens of prompt and completion together."""
    max_num_seqs: int | None = None
    """The most requests worked on at once."""
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    gpu_memory_utilization: float | None = None
    """Share of the device's memory; on a CPU, of the machine's."""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    device: Device = "auto"
    allowed_media_domains: tuple[str, ...] = ()
    """Hosts that images, audio and video may be fetched from."""
    engine_args: Mapping[str, object] = field(default_factory=dict)
    """Further options of vLLM's server by name (`max_num_batched_tokens`, `tool_call_parser`),
    parsed by vLLM itself: numbers, booleans, strings, lists, and mappings as JSON."""
    kv_events: bool = True
    """Say which blocks enter and leave the KV cache, where the engine can."""
    tracing: bool = False
    """Engine spans go to the process's tracer provider, which is set before the engine starts."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A request to an engine, besides its message.

    `trace_headers` is a W3C carrier (`traceparent`, `tracestate`); the engine's own spans join it.
    """

    request_id: str
    trace_headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """The engine's side of `WatchLoadResponse`; counts are requests, blocks and tokens."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    tokens_in_flight: int = 0
    max_num_seqs: int = 0
    num_kv_blocks: int = 0
    kv_block_size: int = 0
    adapters: tuple[str, ...] = ()


class Engine(Protocol):
    """A running engine. Closing an iterator it returned aborts the request and frees its blocks.

    Chunks that are not read yet are merged, one for each completion: a slow reader delays nothing,
    and a reader that reads less often gets fewer and larger chunks.
    """

    def models(self) -> Sequence[v1.Model]:
        """Return the model and its adapters, the model first."""
        ...

    def load(self) -> EngineLoad:
        """Return the load now; cheap enough to be read a hundred times a second."""
        ...

    def kv_feed(self) -> KvFeed | None:
        """Return the blocks in the KV cache by the gateways' names; None where unsupported."""
        ...

    async def generate(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> v1.GenerateResponse: ...

    def generate_stream(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> AsyncIterator[v1.GenerateChunk]:
        """Yield chunks as tokens appear; the last one of all carries usage and timing."""
        ...

    async def chat(self, request: v1.ChatRequest, call: EngineRequest) -> v1.ChatResponse: ...

    def chat_stream(
        self, request: v1.ChatRequest, call: EngineRequest
    ) -> AsyncIterator[v1.ChatChunk]: ...

    async def embed(self, request: v1.EmbedRequest, call: EngineRequest) -> v1.EmbedResponse: ...

    async def tokenize(
        self, request: v1.TokenizeRequest, call: EngineRequest
    ) -> v1.TokenizeResponse: ...

    async def label_logprobs(
        self, request: v1.PredictRequest, call: EngineRequest
    ) -> Sequence[float]:
        """Return the natural logarithm of each label's probability to be generated."""
        ...

    def is_running(self, request_id: str) -> bool:
        """Return whether a stream still generates, rather than waits to be read to its end."""
        ...

    def hold(self, request_id: str) -> None:
        """Announce that the stream is not read until `release`; the engine may keep its tokens."""
        ...

    def release(self, request_id: str) -> None:
        """Make the tokens that were held available to the reader."""
        ...

    async def abort(self, request_ids: Sequence[str]) -> Sequence[str]:
        """End requests by id; returns those that were there."""
        ...

    def http_app(self) -> AsgiApp:
        """Return the OpenAI-compatible app on this engine."""
        ...

    async def wait_dead(self) -> str:
        """Returns, with the cause in one sentence, when the engine can serve no more."""
        ...

    async def close(self) -> None:
        """Stop the engine; requests still running end with an error."""
        ...
