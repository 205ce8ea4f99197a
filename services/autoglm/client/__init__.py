"""The Python client of a gateway or a pod: `Client` (blocking) and `AsyncClient` (asyncio).

    with Client("127.0.0.1:50051") as client:
        for chunk in client.chat_stream([{"role": "user", "content": "Hello!"}], model="tiny-glm"):
            print(chunk.delta.content, end="")

The only public API of a core install: it needs gRPC, protobuf, tenacity and the OpenTelemetry API.
Errors are those of `autoglm.common.errors`; gRPC errors are mapped to them.
"""

from autoglm.client.aio import AsyncClient
from autoglm.client.call import RetryPolicy
from autoglm.client.requests import (
    CallOptions,
    ChatOptions,
    EmbedOptions,
    GenerateOptions,
    PredictOptions,
    Sampling,
    TokenizeOptions,
)
from autoglm.client.sync import Client
from autoglm.common.tls import TlsFiles

__all__ = [
    "AsyncClient",
    "CallOptions",
    "ChatOptions",
    "Client",
    "EmbedOptions",
    "GenerateOptions",
    "PredictOptions",
    "RetryPolicy",
    "Sampling",
    "TlsFiles",
    "TokenizeOptions",
]
