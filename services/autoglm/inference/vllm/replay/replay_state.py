"""The token ids of one stream: those that a dead pod has generated, and those that flow now.

A replay state records what the engine generates, so that each chunk can carry the ids of all tokens
since the last one; and it holds the delivered tokens of a broken stream that is resumed here.
`engine_client` replays and records; `chat`, `generation` and `rest_replay` read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from autoglm import v1
from autoglm.common import errors
from autoglm.validation.openai_stream import ResumedChoice


@dataclass(slots=True)
class ReplayState:
    choices: Mapping[int, ResumedChoice] | None = None
    """By index, where a broken stream is resumed; a choice that is not named has not begun."""
    is_stepwise: bool = False
    """Tokens reach the parsers one by one, so that what these emit depends on the ids alone."""
    is_replaying: bool = False
    """The current output was delivered before, but for the role of a choice not named."""
    rejection: errors.ResumeImpossible | None = None
    backlogs: list[Sequence[Any]] = field(default_factory=list)
    """Outputs of the engine that wait to be taken, one list for each of its requests."""
    _recorded: dict[int, list[int]] = field(default_factory=dict)

    def record(self, index: int, token_ids: Iterable[int]) -> None:
        self._recorded.setdefault(index, []).extend(token_ids)

    def take(self, index: int) -> list[int]:
        """Return the ids that were recorded since the last call."""
        return self._recorded.pop(index, [])

    def is_named(self, index: int) -> bool:
        return self.choices is not None and index in self.choices

    def reject(self, reason: str) -> errors.ResumeImpossible:
        self.rejection = errors.ResumeImpossible(f"This stream cannot be carried on: {reason}.")
        return self.rejection

    @property
    def has_backlog(self) -> bool:
        return any(self.backlogs)


_current: ContextVar[ReplayState | None] = ContextVar("replay_state", default=None)


@contextmanager
def replaying(state: ReplayState) -> Iterator[None]:
    """Requests to the engine that are made inside belong to the stream of this state."""
    token = _current.set(state)
    try:
        yield
    finally:
        _current.reset(token)


def current_state() -> ReplayState | None:
    return _current.get()


def reject_unary(request: v1.GenerateRequest | v1.ChatRequest) -> None:
    """Raises ResumeImpossible where a request without streaming is to be resumed."""
    if request.HasField("resume"):
        raise ReplayState().reject("it is no stream")


def of_message(
    request: v1.GenerateRequest | v1.ChatRequest, *, is_stepwise: bool = False
) -> ReplayState:
    """Raises ResumeImpossible for a state that contradicts the request."""
    if not request.HasField("resume"):
        return ReplayState(is_stepwise=is_stepwise)
    given = [ResumedChoice(c.index, list(c.token_ids), c.finished) for c in request.resume.choices]
    return resumed(given, max(1, request.sampling_params.n), is_stepwise=is_stepwise)


def resumed(given: Sequence[ResumedChoice], n: int, *, is_stepwise: bool) -> ReplayState:
    """Raises ResumeImpossible for a state that contradicts the request for `n` choices."""
    by_index = {c.index: c for c in given}
    state = ReplayState(choices=by_index, is_stepwise=is_stepwise, is_replaying=True)
    if len(by_index) < len(given):
        raise state.reject("its state names a choice twice")
    if any(not 0 <= index < n for index in by_index):
        raise state.reject(f"its state names a choice beyond the {n} requested")
    return state
