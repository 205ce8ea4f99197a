"""The gRPC methods that are proxied to pods: parses their requests and reads the usage they report.

Pure. Requests and responses pass the gateway as bytes. A request is parsed once; a response only
where its usage is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from autoglm import v1
from autoglm.common.errors import InvalidRequest
from autoglm.gateway.request.request import Usage
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import (
    Billing,
    Operation,
    RequestInfo,
    of_chat,
    of_embed,
    of_generate,
    of_oip,
    of_predict,
    of_tokenize,
)
from autoglm.validation.bounds import Bounds
from autoglm.validation.scan.abridged import cut_of
from autoglm.validation.scan.reading import read_message

INFERENCE = "autoglm.v1.Inference"
OIP = "inference.GRPCInferenceService"
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Method:
    """A unary or streaming method. `bidi`: each message of the client's stream is one request."""

    service: str
    name: str
    request: type[Message]
    read: Callable[[bytes], RequestInfo]
    read_usage: Callable[[bytes], Usage | None]
    streaming: bool = False
    bidi: bool = False

    async def info(self, payload: bytes | memoryview, bounds: Bounds) -> RequestInfo:
        """Return what the message requests. Raises InvalidRequest if it exceeds a bound."""
        return await read_message(self.request, self.read, payload, bounds)

    def usage(self, payload: bytes) -> Usage | None:
        """Return the usage in a response or in the last message of a stream.

        Returns None for bytes that are no such message: they were already delivered to the client,
        so the request does not fail.
        """
        try:
            return self.read_usage(payload)
        except DecodeError:
            return None

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    @property
    def route(self) -> str:
        return f"{self.service}/{self.name}"


def _parse(kind: type[M], payload: bytes) -> M:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest(f"the request is not a valid {name}; check its encoding") from error


def _generate(payload: bytes) -> RequestInfo:
    return of_generate(_parse(v1.GenerateRequest, payload), cut=cut_of(payload))


def _generate_stream(payload: bytes) -> RequestInfo:
    request = _parse(v1.GenerateRequest, payload)
    return of_generate(request, streaming=True, cut=cut_of(payload))


def _chat(payload: bytes) -> RequestInfo:
    return of_chat(_parse(v1.ChatRequest, payload), cut=cut_of(payload))


def _chat_stream(payload: bytes) -> RequestInfo:
    return of_chat(_parse(v1.ChatRequest, payload), streaming=True, cut=cut_of(payload))


def _embed(payload: bytes) -> RequestInfo:
    return of_embed(_parse(v1.EmbedRequest, payload), cut=cut_of(payload))


def _predict(payload: bytes) -> RequestInfo:
    return of_predict(_parse(v1.PredictRequest, payload), cut=cut_of(payload))


def _tokenize(payload: bytes) -> RequestInfo:
    return of_tokenize(_parse(v1.TokenizeRequest, payload), cut=cut_of(payload))


def _infer(payload: bytes) -> RequestInfo:
    return of_oip(_parse(oip.ModelInferRequest, payload), cut=cut_of(payload))


def _infer_stream(payload: bytes) -> RequestInfo:
    return of_oip(_parse(oip.ModelInferRequest, payload), streaming=True, cut=cut_of(payload))


def _model_metadata(payload: bytes) -> RequestInfo:
    name = _parse(oip.ModelMetadataRequest, payload).name
    return RequestInfo(Operation.INFER, name, billing=Billing.FREE)


def _reasons(values: Iterable[int]) -> tuple[str, ...]:
    names = (v1.FinishReason.Name(v1.FinishReason.ValueType(value)) for value in values if value)
    return tuple(name.removeprefix("FINISH_REASON_").lower() for name in names)


def _usage(counted: v1.Usage, reasons: Iterable[int] = ()) -> Usage:
    return Usage(counted.prompt_tokens, counted.completion_tokens, _reasons(reasons))


def _usage_of_generate(payload: bytes) -> Usage:
    response = v1.GenerateResponse.FromString(payload)
    return _usage(response.usage, (c.finish_reason for c in response.completions))


def _usage_of_generate_chunk(payload: bytes) -> Usage:
    chunk = v1.GenerateChunk.FromString(payload)
    return _usage(chunk.usage, (chunk.finish_reason,))


def _usage_of_chat(payload: bytes) -> Usage:
    response = v1.ChatResponse.FromString(payload)
    return _usage(response.usage, (c.finish_reason for c in response.choices))


def _usage_of_chat_chunk(payload: bytes) -> Usage:
    chunk = v1.ChatChunk.FromString(payload)
    return _usage(chunk.usage, (chunk.finish_reason,))


def _usage_of_embed(payload: bytes) -> Usage:
    return _usage(v1.EmbedResponse.FromString(payload).usage)


def _usage_of_predict(payload: bytes) -> Usage:
    return _usage(v1.PredictResponse.FromString(payload).usage)


def _unknown(_: bytes) -> None:
    return None


METHODS: tuple[Method, ...] = (
    Method(INFERENCE, "Generate", v1.GenerateRequest, _generate, _usage_of_generate),
    Method(
        INFERENCE,
        "GenerateStream",
        v1.GenerateRequest,
        _generate_stream,
        _usage_of_generate_chunk,
        streaming=True,
    ),
    Method(INFERENCE, "Chat", v1.ChatRequest, _chat, _usage_of_chat),
    Method(
        INFERENCE, "ChatStream", v1.ChatRequest, _chat_stream, _usage_of_chat_chunk, streaming=True
    ),
    Method(INFERENCE, "Embed", v1.EmbedRequest, _embed, _usage_of_embed),
    Method(INFERENCE, "Predict", v1.PredictRequest, _predict, _usage_of_predict),
    Method(INFERENCE, "Tokenize", v1.TokenizeRequest, _tokenize, _unknown),
    Method(OIP, "ModelInfer", oip.ModelInferRequest, _infer, _unknown),
    Method(OIP, "ModelMetadata", oip.ModelMetadataRequest, _model_metadata, _unknown),
    Method(
        OIP,
        "ModelStreamInfer",
        oip.ModelInferRequest,
        _infer_stream,
        _unknown,
        streaming=True,
        bidi=True,
    ),
)
BY_PATH: Mapping[str, Method] = {method.path: method for method in METHODS}
