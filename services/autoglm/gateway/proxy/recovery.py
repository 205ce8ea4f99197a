"""Whether and how a broken stream may go on from another endpoint. Pure; used by the relay.

Token replay: a transcript keeps the token ids of what the client has; the next endpoint gets
its request with those ids, and goes on behind them. Exact or not at all: what cannot
be told exactly raises NotResumable with the reason. The transcripts are `grpc_transcript` and
`sse_transcript`.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import Protocol

from autoglm import v1
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.snapshot import Snapshot

# From here on raw chunks are reduced to their token ids.
COMPACT_BYTES = 32 * 1024
_TOKEN_BYTES = array("I").itemsize


class NotResumable(Exception):
    """Why a stream cannot go on elsewhere, for the client to read."""


@dataclass(slots=True)
class DeliveredTokens:
    """What has been delivered of one answer of a stream."""

    token_ids: array[int] = field(default_factory=lambda: array("I"))
    finished: bool = False


class Transcript(Protocol):
    """What has been delivered of one stream."""

    def feed(self, chunk: bytes) -> bytes:
        """Takes what came from the pod; what the client gets of it now."""
        ...

    def rest(self) -> bytes:
        """What was held back of a stream that has ended well."""
        ...

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        ...

    def give_up(self, why: str) -> None:
        """Nothing more is kept, and the stream cannot go on elsewhere."""
        ...

    @property
    def failure(self) -> str:
        """What the pod said of its own end inside the stream; empty while it is well."""
        ...

    def is_complete(self) -> bool:
        """Whether all of it has been delivered, so that nothing is left to recover."""
        ...

    def resumption(self, payload: bytes) -> bytes:
        """The request that goes on behind what was delivered. Raises NotResumable."""
        ...


class Ledger:
    """The tokens of all answers of one stream, up to a limit."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._count = 0
        self.said: dict[int, DeliveredTokens] = {}
        self.why_not = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return self._count * _TOKEN_BYTES

    def add(self, index: int, token_ids: list[int], *, has_text: bool, finished: bool) -> None:
        if self.why_not:
            return
        said = self.said.setdefault(index, DeliveredTokens())
        said.token_ids.extend(token_ids)
        said.finished = said.finished or finished
        self._count += len(token_ids)
        if has_text and not said.token_ids:
            self.give_up("the pod does not say which tokens it sends")
        if self._count > self._max_tokens:
            self.give_up(f"more than {self._max_tokens} tokens were sent, the most that are kept")

    def give_up(self, why: str) -> None:
        self.why_not = self.why_not or why
        self.said.clear()
        self._count = 0

    def check(self) -> None:
        if self.why_not:
            raise NotResumable(self.why_not)


def model_of(view: EndpointView, name: str) -> v1.Model | None:
    return next((m for m in view.state.models if name == m.name or name in m.aliases), None)


def is_resumable(view: EndpointView, name: str) -> bool:
    model = model_of(view, name)
    return model is not None and model.resumable


def successors(snapshot: Snapshot, name: str, broken: EndpointView) -> Snapshot:
    """The snapshot with those endpoints alone that can go on exactly where `broken` ended."""
    wanted, model = _identity(broken, name), snapshot.models.get(name)
    if model is None:
        return snapshot
    fit = {
        view.url
        for view in (*model.grpc, *model.http)
        if is_resumable(view, name) and _identity(view, name) == wanted
    }
    narrowed = replace(
        model,
        grpc=tuple(view for view in model.grpc if view.url in fit),
        http=tuple(view for view in model.http if view.url in fit),
    )
    return replace(snapshot, models={name: narrowed})


def _identity(view: EndpointView, name: str) -> tuple[object, ...]:
    """The same for endpoints that compute the same, as far as they tell."""
    found = model_of(view, name) or v1.Model()
    return (
        found.name,
        found.parent,
        found.uri,
        found.dtype,
        found.quantization,
        found.engine,
        found.max_model_len,
        view.endpoint.origin,
    )
