"""Record the delivered part of a stream, of gRPC and of OpenAI's events, as `recovery.Transcript`.

Does no I/O. gRPC chunks stay bytes; they are parsed when the pod is lost, and before that only to
reduce memory. Over HTTP a pod writes the token ids of an event into a comment before it, at the
header `REPLAY_HEADER`; clients never receive it. Only whole events are delivered: a part of one is
held back, so that an event is delivered as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from google.protobuf.message import DecodeError

from autoglm import v1
from autoglm.api.spec.traffic import StreamRecovery
from autoglm.common import errors
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.proxy.recovery import (
    COMPACT_BYTES,
    Ledger,
    NotResumable,
    Transcript,
    is_resumable,
)
from autoglm.gateway.request.event_stream import is_event_stream
from autoglm.gateway.request.request import GatewayRequest, Response
from autoglm.validation.openai_stream import (
    DATA,
    DONE,
    REPLAY_PATHS,
    RESUME_FIELD,
    TOKEN_COMMENT,
    Choice,
    Resume,
    ResumedChoice,
    Tokens,
)

_END = b"\n\n"
_ERROR = b'data: {"error"'
_FINISHES = b'"finish_reason":"'
_MAX_EVENT_BYTES = 16 * 1024 * 1024
# Error codes for the loss of the pod, not of the request.
_LOSSES = (errors.EngineDead.reason.lower(), errors.ShuttingDown.reason.lower())
_Request = type[v1.GenerateRequest] | type[v1.ChatRequest]
_Chunk = v1.GenerateChunk | v1.ChatChunk


def is_replayed(request: GatewayRequest, view: EndpointView) -> bool:
    """Return whether the pod writes token ids into the request's event stream."""
    return (
        request.exchange.has_chunks
        and request.info is not None
        and request.info.streaming
        and request.target.partition("?")[0] in REPLAY_PATHS
        and is_resumable(view, request.model)
    )


def transcript_of(
    request: GatewayRequest, view: EndpointView, response: Response, policy: StreamRecovery
) -> Transcript | None:
    """Return the transcript of a response; None for one that cannot be resumed elsewhere."""
    if policy.mode == "Off" or response.status != 200:
        return None
    if not request.exchange.has_chunks or not is_resumable(view, request.model):
        return None
    if kind := KINDS.get(request.target):
        return GrpcTranscript(kind, policy.max_replay_tokens)
    if is_replayed(request, view) and is_event_stream(response.headers):
        return SseTranscript(policy.max_replay_tokens)
    return None


def _has_delta(chunk: v1.ChatChunk) -> bool:
    delta = v1.ChatMessage()
    delta.CopyFrom(chunk.delta)
    delta.ClearField("role")
    return delta.ByteSize() > 0


@dataclass(frozen=True, slots=True)
class Kind:
    """The messages of one streaming method."""

    request: _Request
    parse: Callable[[bytes], _Chunk]
    has_text: Callable[..., bool]


KINDS = {
    "/autoglm.v1.Inference/GenerateStream": Kind(
        v1.GenerateRequest, v1.GenerateChunk.FromString, lambda chunk: bool(chunk.text)
    ),
    "/autoglm.v1.Inference/ChatStream": Kind(v1.ChatRequest, v1.ChatChunk.FromString, _has_delta),
}


class GrpcTranscript:
    """The delivered chunks of a gRPC stream, or the token ids of older ones."""

    failure = ""

    def __init__(self, kind: Kind, max_tokens: int) -> None:
        self._kind = kind
        self._ledger = Ledger(max_tokens)
        self._raw: list[bytes] = []
        self._size = 0
        self._has_usage = False

    @property
    def size(self) -> int:
        return self._size + self._ledger.size

    def give_up(self, why: str) -> None:
        self._ledger.give_up(why)
        self._compact()

    def feed(self, chunk: bytes) -> bytes:
        self._raw.append(chunk)
        self._size += len(chunk)
        if self._size >= COMPACT_BYTES:
            self._compact()
        return chunk

    def rest(self) -> bytes:
        return b""

    def is_complete(self) -> bool:
        self._compact()
        return self._has_usage

    def resumption(self, payload: bytes) -> bytes:
        self._compact()
        self._ledger.check()
        if not self._ledger.delivered:
            return payload
        if self._kind.request.FromString(payload).HasField("resume"):
            raise NotResumable("the request itself resumes another stream")
        choices = [
            v1.ResumedChoice(
                index=index, token_ids=delivered.token_ids, finished=delivered.finished
            )
            for index, delivered in sorted(self._ledger.delivered.items())
        ]
        # Serialised messages that are joined are merged (protobuf's encoding guide).
        return payload + self._kind.request(resume=v1.Resume(choices=choices)).SerializeToString()

    def _compact(self) -> None:
        raw, self._raw, self._size = self._raw, [], 0
        try:
            for data in raw:
                chunk = self._kind.parse(data)
                self._has_usage = self._has_usage or chunk.HasField("usage")
                if not self._ledger.why_not:
                    self._ledger.add(
                        chunk.index,
                        list(chunk.token_ids),
                        has_text=self._kind.has_text(chunk),
                        finished=bool(chunk.finish_reason),
                    )
        except DecodeError:
            self._ledger.give_up("the pod's chunks cannot be read")


class _Delivered(Choice):
    delta: dict[str, object] | None = None
    text: str = ""

    @property
    def has_text(self) -> bool:
        delivered = (self.delta or {}).items()
        return bool(self.text) or any(value for name, value in delivered if name != "role")


class _Delivery(msgspec.Struct):
    choices: list[_Delivered] = []


class _Failed(msgspec.Struct):
    code: str | int | None = None
    message: str = ""


class _Failure(msgspec.Struct):
    error: _Failed


class SseTranscript:
    """The token ids of the delivered events, and the part of an event that is held back."""

    def __init__(self, max_tokens: int) -> None:
        self._ledger = Ledger(max_tokens)
        self._held = b""
        self._pending: list[bytes] = []
        self._raw: list[bytes] = []
        self._size = 0
        self._is_done = False
        self.failure = ""

    @property
    def size(self) -> int:
        return self._size + len(self._held) + self._ledger.size

    def give_up(self, why: str) -> None:
        self._ledger.give_up(why)
        self._compact()

    def feed(self, chunk: bytes) -> bytes:
        arrived = self._held + chunk if self._held else chunk
        end = arrived.rfind(_END)
        if end < 0:
            self._held = arrived
            if len(arrived) > _MAX_EVENT_BYTES:
                self.failure = f"the pod sent an event of more than {_MAX_EVENT_BYTES} bytes"
            return b""
        self._held = arrived[end + len(_END) :]
        events = [self._take(event) for event in arrived[:end].split(_END)]
        return b"".join(event + _END for event in events if event)

    def rest(self) -> bytes:
        return self._held

    def is_complete(self) -> bool:
        return self._is_done

    def resumption(self, payload: bytes) -> bytes:
        self._held, self.failure = b"", ""
        self._pending.clear()
        self._compact()
        self._ledger.check()
        if not self._ledger.delivered:
            return payload
        body = payload.rstrip()
        if not body.endswith(b"}") or RESUME_FIELD.encode() in body:
            raise NotResumable("the request itself resumes another stream")
        choices = [
            ResumedChoice(index, list(delivered.token_ids), delivered.finished)
            for index, delivered in sorted(self._ledger.delivered.items())
        ]
        resume = msgspec.json.encode(Resume(choices))
        return body[:-1] + b',"' + RESUME_FIELD.encode() + b'":' + resume + b"}"

    def _take(self, event: bytes) -> bytes:
        """Return the event without comments; empty where nothing is left of it."""
        while event.startswith(TOKEN_COMMENT):
            comment, _, event = event.partition(b"\n")
            self._pending.append(comment[len(TOKEN_COMMENT) :])
        if not event or self.failure:
            return b""
        if event.startswith(_ERROR) and self._is_loss(event):
            return b""
        self._deliver(event)
        return event

    def _is_loss(self, event: bytes) -> bool:
        try:
            error = msgspec.json.decode(event[len(DATA) :], type=_Failure).error
        except msgspec.DecodeError:
            return False
        if str(error.code) not in _LOSSES:
            return False
        self.failure = error.message or "the pod's engine stopped"
        return True

    def _deliver(self, event: bytes) -> None:
        if event == DONE:
            self._is_done = True
            return
        if not self._pending or _FINISHES in event:
            self._read(event)
        self._raw += self._pending
        self._size += sum(map(len, self._pending))
        self._pending.clear()
        if self._size >= COMPACT_BYTES:
            self._compact()

    def _read(self, event: bytes) -> None:
        """Read what an event's comment does not contain: that a choice has begun or ended."""
        if self._ledger.why_not or not event.startswith(DATA):
            return
        try:
            found = msgspec.json.decode(event[len(DATA) :], type=_Delivery)
        except msgspec.DecodeError:
            self._ledger.give_up("the pod's events cannot be read")
            return
        if not self._pending:
            self._compact()
        for choice in found.choices:
            self._ledger.add(
                choice.index,
                [],
                has_text=choice.has_text and not self._pending,
                finished=choice.finish_reason is not None,
            )

    def _compact(self) -> None:
        raw, self._raw, self._size = self._raw, [], 0
        if self._ledger.why_not:
            return
        try:
            for data in raw:
                tokens = msgspec.json.decode(data, type=Tokens)
                self._ledger.add(tokens.index, tokens.ids, has_text=False, finished=False)
        except msgspec.DecodeError:
            self._ledger.give_up("the pod's tokens cannot be read")
