"""Record the delivered part of a stream, of gRPC and of OpenAI's events, as `recovery.Transcript`.

Does no I/O. Delivered chunks stay bytes; they are parsed when the pod is lost, and before that only
to reduce memory (`fold`). Over HTTP a pod writes the token ids of an event into a comment before
it, at the header `REPLAY_HEADER`; clients never receive it. Only whole events are delivered: a part
of one is held back, so that an event is delivered as a whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from google.protobuf.message import DecodeError

from autoglm import v1
from autoglm.api.spec.traffic import StreamRecovery
from autoglm.common import errors
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.proxy.recovery import (
    FOLD_BYTES,
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
# A comment is a line of its own, and without an event behind it an event of its own.
_COMMENTS = re.compile(rb"(?m)^" + re.escape(TOKEN_COMMENT) + rb".*(?:\n\n?|\Z)")
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
    if request.info is None or not request.info.streaming or not request.exchange.has_chunks:
        return None
    if policy.mode == "Off" or response.status != 200 or not is_resumable(view, request.model):
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
        self._raw_bytes = self.size = 0
        self._has_usage = False

    def give_up(self, why: str) -> None:
        self._ledger.give_up(why)
        self.fold()

    def feed(self, chunk: bytes) -> bytes:
        self._raw.append(chunk)
        self._raw_bytes += len(chunk)
        self.size += len(chunk)
        if self._raw_bytes >= FOLD_BYTES:
            self.fold()
        return chunk

    def rest(self) -> bytes:
        return b""

    def is_complete(self) -> bool:
        self.fold()
        return self._has_usage

    def resumption(self, payload: bytes) -> bytes:
        self.fold()
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

    def fold(self) -> None:
        raw, self._raw, self._raw_bytes = self._raw, [], 0
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
        self.size = self._ledger.size


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
    """The delivered events, or the token ids of older ones, and the part of an event held back."""

    def __init__(self, max_tokens: int) -> None:
        self._ledger = Ledger(max_tokens)
        self._held = b""
        self._raw: list[bytes] = []
        self._raw_bytes = self.size = 0
        self._is_done = False
        self.failure = ""

    def give_up(self, why: str) -> None:
        self._ledger.give_up(why)
        self.fold()

    def feed(self, chunk: bytes) -> bytes:
        if self._held or not chunk.endswith(_END):
            chunk = self._whole_events(chunk)
        if self.failure or _ERROR in chunk:
            chunk = self._before_loss(chunk)
        if not chunk:
            return b""
        self._raw.append(chunk)
        self._raw_bytes += len(chunk)
        self.size += len(chunk)
        if self._raw_bytes >= FOLD_BYTES:
            self.fold()
        return _COMMENTS.sub(b"", chunk) if TOKEN_COMMENT in chunk else chunk

    def rest(self) -> bytes:
        return self._held

    def is_complete(self) -> bool:
        self.fold()
        return self._is_done

    def resumption(self, payload: bytes) -> bytes:
        self._held, self.failure = b"", ""
        self.fold()
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

    def fold(self) -> None:
        raw, self._raw, self._raw_bytes = b"".join(self._raw), [], 0
        for event in raw.split(_END):
            if event and not self._is_done:
                self._fold_event(event)
        self.size = self._ledger.size + len(self._held)

    def _whole_events(self, chunk: bytes) -> bytes:
        """Return the events that are complete with this chunk; hold the rest back."""
        arrived, before = self._held + chunk, len(self._held)
        end = arrived.rfind(_END) + len(_END)
        if end < len(_END):
            end = 0
        self._held = arrived[end:]
        self.size += len(self._held) - before
        if len(self._held) > _MAX_EVENT_BYTES:
            self.failure = f"the pod sent an event of more than {_MAX_EVENT_BYTES} bytes"
        return arrived[:end]

    def _before_loss(self, chunk: bytes) -> bytes:
        """Return the events before the one that reports the loss of the pod, if there is one."""
        if self.failure:
            return b""
        kept = 0
        for event in chunk.split(_END):
            if self._is_loss(_COMMENTS.sub(b"", event)):
                return chunk[:kept]
            kept += len(event) + len(_END)
        return chunk

    def _is_loss(self, event: bytes) -> bool:
        if not event.startswith(_ERROR):
            return False
        try:
            error = msgspec.json.decode(event[len(DATA) :], type=_Failure).error
        except msgspec.DecodeError:
            return False
        if str(error.code) not in _LOSSES:
            return False
        self.failure = error.message or "the pod's engine stopped"
        return True

    def _fold_event(self, event: bytes) -> None:
        comments = []
        while event.startswith(TOKEN_COMMENT):
            comment, _, event = event.partition(b"\n")
            comments.append(comment[len(TOKEN_COMMENT) :])
        if event == DONE:
            self._is_done = True
        if self._ledger.why_not:
            return
        if event.startswith(DATA) and event != DONE and (not comments or _FINISHES in event):
            self._read(event, has_ids=bool(comments))
        try:
            for comment in comments:
                tokens = msgspec.json.decode(comment, type=Tokens)
                self._ledger.add(tokens.index, tokens.ids, has_text=False, finished=False)
        except msgspec.DecodeError:
            self._ledger.give_up("the pod's tokens cannot be read")

    def _read(self, event: bytes, *, has_ids: bool) -> None:
        """Read what an event's comment does not contain: that a choice has begun or ended."""
        try:
            found = msgspec.json.decode(event[len(DATA) :], type=_Delivery)
        except msgspec.DecodeError:
            self._ledger.give_up("the pod's events cannot be read")
            return
        for choice in found.choices:
            self._ledger.add(
                choice.index,
                [],
                has_text=choice.has_text and not has_ids,
                finished=choice.finish_reason is not None,
            )
