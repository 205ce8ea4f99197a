"""The asyncio client: `Client`, method for method, with `await` and `async for`."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from tenacity import AsyncRetrying

from autoglm import v1
from autoglm.client import requests
from autoglm.client.call import ClientCall, RetryPolicy, Target, key_or_default
from autoglm.client.requests import (
    CallOptions,
    ChatMessages,
    ChatOptions,
    EmbedOptions,
    GenerateOptions,
    PredictOptions,
    Prompt,
    TokenizeOptions,
    hint_metadata,
)
from autoglm.common import rpc
from autoglm.common.tls import TlsFiles
from autoglm.v1.inference_pb2_grpc import InferenceStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class AsyncClient:
    """Connects to one gateway or pod. The arguments are those of `Client`.

    Create it while an event loop is running.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        model: str = "",
        timeout: float | None = 600.0,
        tls: TlsFiles | None = None,
        retries: RetryPolicy | None = None,
        api_key: str | None = None,
    ) -> None:
        key = key_or_default(api_key)
        policy = retries or RetryPolicy()
        self._target = Target(address, model, timeout, policy, random.Random(), key)
        self._channel = rpc.channel(address, tls)
        self._stub = InferenceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel its calls."""
        await self._channel.close()

    async def generate(
        self, prompt: Prompt, **options: Unpack[GenerateOptions]
    ) -> v1.GenerateResponse:
        """Complete text or token ids; no chat template is applied."""
        request = requests.generate_request(prompt, options, self._target.model)
        call = ClientCall("Generate", request.model, self._target, options, hint_metadata(request))
        return await self._unary(self._stub.Generate, request, call)

    def generate_stream(
        self, prompt: Prompt, **options: Unpack[GenerateOptions]
    ) -> AsyncGenerator[v1.GenerateChunk, None]:
        """Stream the response. Closing the generator cancels the call."""
        request = requests.generate_request(prompt, options, self._target.model)
        call = ClientCall(
            "GenerateStream", request.model, self._target, options, hint_metadata(request)
        )
        return self._stream(self._stub.GenerateStream, request, call)

    async def chat(
        self, messages: str | ChatMessages, **options: Unpack[ChatOptions]
    ) -> v1.ChatResponse:
        """Return the response to a conversation, or to a text as its only user message."""
        request = requests.chat_request(messages, options, self._target.model)
        call = ClientCall("Chat", request.model, self._target, options, hint_metadata(request))
        return await self._unary(self._stub.Chat, request, call)

    def chat_stream(
        self, messages: str | ChatMessages, **options: Unpack[ChatOptions]
    ) -> AsyncGenerator[v1.ChatChunk, None]:
        """Stream the response. Closing the generator cancels the call."""
        request = requests.chat_request(messages, options, self._target.model)
        call = ClientCall(
            "ChatStream", request.model, self._target, options, hint_metadata(request)
        )
        return self._stream(self._stub.ChatStream, request, call)

    async def embed(
        self, texts: str | Sequence[str], **options: Unpack[EmbedOptions]
    ) -> v1.EmbedResponse:
        """Return one vector for each text."""
        request = requests.embed_request(texts, options, self._target.model)
        call = ClientCall("Embed", request.model, self._target, options)
        return await self._unary(self._stub.Embed, request, call)

    async def predict(self, text: str, **options: Unpack[PredictOptions]) -> v1.PredictResponse:
        """Classify a text as one of `labels`, or generate a response if no labels are given."""
        request = requests.predict_request(text, options, self._target.model)
        call = ClientCall("Predict", request.model_name, self._target, options)
        return await self._unary(self._stub.Predict, request, call)

    async def tokenize(
        self, text: str | ChatMessages, **options: Unpack[TokenizeOptions]
    ) -> v1.TokenizeResponse:
        """Return the token ids of a text, or of a conversation in the chat template."""
        request = requests.tokenize_request(text, options, self._target.model)
        call = ClientCall("Tokenize", request.model, self._target, options)
        return await self._unary(self._stub.Tokenize, request, call)

    async def list_models(self, **options: Unpack[CallOptions]) -> list[v1.Model]:
        """Return the available models, sorted by name."""
        call = ClientCall("ListModels", "", self._target, options)
        response = await self._unary(self._stub.ListModels, v1.ListModelsRequest(), call)
        return list(response.models)

    async def get_model(self, name: str, **options: Unpack[CallOptions]) -> v1.Model:
        """Return a model. Raises ModelNotFound with the available models."""
        call = ClientCall("GetModel", name, self._target, options)
        request = v1.GetModelRequest(name=name)
        return (await self._unary(self._stub.GetModel, request, call)).model

    async def _unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        call: ClientCall,
    ) -> Response:
        async def attempt() -> Response:
            with call.mapped_errors():
                return await method(request, **call.arguments())

        with call:
            response: Response = await AsyncRetrying(**call.retrying())(attempt)
        return response

    async def _stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        call: ClientCall,
    ) -> AsyncGenerator[Response, None]:
        async def open_stream() -> tuple[Any, Response | None]:
            with call.mapped_errors():
                stream_call = method(request, **call.arguments())
                return stream_call, await anext(aiter(stream_call), None)

        with call:
            opened: tuple[Any, Response | None] = await AsyncRetrying(**call.retrying())(
                open_stream
            )
            stream_call, first = opened
            try:
                if first is not None:
                    yield first
                    with call.mapped_errors():
                        async for message in stream_call:
                            yield message
            finally:
                stream_call.cancel()
