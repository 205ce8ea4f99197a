"""The gRPC methods that are proxied to pods: parses their requests and reads the usage they report.

Pure. Requests and responses pass the gateway as bytes. A request is parsed once; a response only
where its usage is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

from autoglm import v1
from autoglm.common.status import TokenUsage, usage_of
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
from autoglm.validation.scan.abridged import Cut, cut_of
from autoglm.validation.scan.proto_scan import parsed
from autoglm.validation.scan.reading import read_message

INFERENCE = "autoglm.v1.Inference"
OIP = "inference.GRPCInferenceService"


def _of_metadata(request: oip.ModelMetadataRequest, *, cut: Cut) -> RequestInfo:
    return RequestInfo(Operation.INFER, request.name, billing=Billing.FREE)


@dataclass(frozen=True, slots=True)
class Method:
    """A unary or streaming method. `bidi`: each message of the client's stream is one request."""

    service: str
    name: str
    request: type[Message]
    decode: Callable[..., RequestInfo]
    """Returns what a request message requests, one of the validation's `of_` functions."""
    response: type[Message] | None = None
    """The message of the response, or of its stream, if it reports usage."""
    streaming: bool = False
    bidi: bool = False

    async def info(self, payload: bytes | memoryview, bounds: Bounds) -> RequestInfo:
        """Return what the message requests. Raises InvalidRequest if it exceeds a bound."""
        return await read_message(self.request, self.read, payload, bounds)

    def read(self, payload: bytes) -> RequestInfo:
        """Return what a whole message requests. Raises InvalidRequest if it is not one."""
        streaming = {"streaming": True} if self.streaming else {}
        return self.decode(parsed(payload, self.request), cut=cut_of(payload), **streaming)

    def usage(self, payload: bytes) -> TokenUsage | None:
        """Return the usage in a response or in the last message of a stream.

        Returns None for bytes that are no such message: they were already delivered to the client,
        so the request does not fail.
        """
        if self.response is None:
            return None
        try:
            return usage_of(self.response.FromString(payload))
        except DecodeError:
            return None

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    @property
    def route(self) -> str:
        return f"{self.service}/{self.name}"


METHODS: tuple[Method, ...] = (
    Method(INFERENCE, "Generate", v1.GenerateRequest, of_generate, v1.GenerateResponse),
    Method(
        INFERENCE,
        "GenerateStream",
        v1.GenerateRequest,
        of_generate,
        v1.GenerateChunk,
        streaming=True,
    ),
    Method(INFERENCE, "Chat", v1.ChatRequest, of_chat, v1.ChatResponse),
    Method(INFERENCE, "ChatStream", v1.ChatRequest, of_chat, v1.ChatChunk, streaming=True),
    Method(INFERENCE, "Embed", v1.EmbedRequest, of_embed, v1.EmbedResponse),
    Method(INFERENCE, "Predict", v1.PredictRequest, of_predict, v1.PredictResponse),
    Method(INFERENCE, "Tokenize", v1.TokenizeRequest, of_tokenize),
    Method(OIP, "ModelInfer", oip.ModelInferRequest, of_oip),
    Method(OIP, "ModelMetadata", oip.ModelMetadataRequest, _of_metadata),
    Method(OIP, "ModelStreamInfer", oip.ModelInferRequest, of_oip, streaming=True, bidi=True),
)
BY_PATH: Mapping[str, Method] = {method.path: method for method in METHODS}
