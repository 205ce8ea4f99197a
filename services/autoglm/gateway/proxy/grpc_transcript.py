"""The transcript of a gRPC stream: a `recovery.Transcript`. Does no I/O.

Chunks stay bytes. They are parsed when the pod is lost, and before that only to reduce memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from autoglm import v1
from autoglm.gateway.proxy.recovery import COMPACT_BYTES, Ledger, NotResumable

_Request = type[v1.GenerateRequest] | type[v1.ChatRequest]
_Chunk = v1.GenerateChunk | v1.ChatChunk


def _has_text(chunk: v1.GenerateChunk) -> bool:
    return bool(chunk.text)


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
        v1.GenerateRequest, v1.GenerateChunk.FromString, _has_text
    ),
    "/autoglm.v1.Inference/ChatStream": Kind(v1.ChatRequest, v1.ChatChunk.FromString, _has_delta),
}


class GrpcTranscript:
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
                self._note(self._kind.parse(data))
        except DecodeError:
            self._ledger.give_up("the pod's chunks cannot be read")

    def _note(self, chunk: _Chunk) -> None:
        self._has_usage = self._has_usage or chunk.HasField("usage")
        if not self._ledger.why_not:
            self._ledger.add(
                chunk.index,
                list(chunk.token_ids),
                has_text=self._kind.has_text(chunk),
                finished=bool(chunk.finish_reason),
            )
