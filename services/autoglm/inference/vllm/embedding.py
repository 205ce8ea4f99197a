"""Vectors of texts, through the class that serves vLLM's /v1/embeddings."""

from __future__ import annotations

import msgspec
from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest

from autoglm import v1
from autoglm.inference.engine import EngineRequest
from autoglm.inference.vllm.chat import chat_results
from autoglm.inference.vllm.runtime import Runtime, http_request


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Vectors(msgspec.Struct):
    model: str
    data: list[_Vector]
    usage: chat_results.Usage


class Embedding:
    """`Engine.embed`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def embed(self, request: v1.EmbedRequest, call: EngineRequest) -> v1.EmbedResponse:
        with self._runtime.translating("texts"):
            self._runtime.find(request.model)
            self._runtime.require("embed")
            wanted = EmbeddingCompletionRequest(
                model=request.model,
                input=list(request.texts),
                dimensions=request.dimensions if request.HasField("dimensions") else None,
                encoding_format="float",
            )
            answer = await self._runtime.app.state.serving_embedding(wanted, http_request(call))
            found = msgspec.json.decode(answer.body, type=_Vectors)
            return v1.EmbedResponse(
                model=found.model,
                embeddings=[v1.Embedding(index=v.index, values=v.embedding) for v in found.data],
                usage=chat_results.usage(found.usage),
            )
