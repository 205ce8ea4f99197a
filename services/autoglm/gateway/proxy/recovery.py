"""Decides whether and how another endpoint may resume a broken stream. Pure; used by the proxy.

Token replay: a transcript keeps the token ids of what was delivered; the next endpoint gets the
request with those ids and generates what follows. Recovery is exact or not done: a stream whose
tokens are not known exactly raises NotResumable with the reason. `transcripts` has the two
transcripts.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import Protocol

from autoglm import v1
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.snapshot import Snapshot

# From here on raw chunks are folded into their token ids.
FOLD_BYTES = 64 * 1024
_TOKEN_BYTES = array("I").itemsize


class NotResumable(Exception):
    """The reason why a stream cannot be resumed, for the client's error message."""


@dataclass(slots=True)
class DeliveredTokens:
    """The delivered tokens of one choice of a stream."""

    token_ids: array[int] = field(default_factory=lambda: array("I"))
    finished: bool = False


class Transcript(Protocol):
    """Keeps what has been delivered of one stream."""

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk of the pod and return what the client gets of it now."""
        ...

    def rest(self) -> bytes:
        """Return what was held back of a stream that ended without an error."""
        ...

    size: int
    """Bytes in memory."""

    def fold(self) -> None:
        """Reduce what is kept to token ids."""
        ...

    def give_up(self, why: str) -> None:
        """Keep nothing from now on, so that the stream cannot be resumed."""
        ...

    @property
    def failure(self) -> str:
        """Return the error that the pod sent inside the stream; empty if there was none."""
        ...

    def is_complete(self) -> bool:
        """Return whether the whole response was delivered, so that nothing is to be recovered."""
        ...

    def resumption(self, payload: bytes) -> bytes:
        """Return the request that resumes behind what was delivered. Raises NotResumable."""
        ...


class Ledger:
    """Keeps the tokens of all choices of one stream, up to a limit."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._count = 0
        self.delivered: dict[int, DeliveredTokens] = {}
        self.why_not = ""

    @property
    def size(self) -> int:
        """Return the bytes in memory."""
        return self._count * _TOKEN_BYTES

    def add(self, index: int, token_ids: list[int], *, has_text: bool, finished: bool) -> None:
        if self.why_not:
            return
        delivered = self.delivered.setdefault(index, DeliveredTokens())
        delivered.token_ids.extend(token_ids)
        delivered.finished = delivered.finished or finished
        self._count += len(token_ids)
        if has_text and not delivered.token_ids:
            self.give_up("the pod sends no token ids")
        if self._count > self._max_tokens:
            self.give_up(f"more than {self._max_tokens} tokens were sent, the most that are kept")

    def give_up(self, why: str) -> None:
        self.why_not = self.why_not or why
        self.delivered.clear()
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
    """Return a snapshot of only those endpoints that can resume exactly where `broken` ended."""
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
    """Return a key that is equal for endpoints that report the same model and settings."""
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
