"""The token ids of one stream: those that a dead pod has generated, and those that flow now.

A replay state records what the engine generates, so that each chunk can carry the ids of all tokens
since the last one; and it holds the delivered tokens of a broken stream that is resumed here.
`engine_client` replays and records; `chat`, `generation` and `rest_replay` read.

`objection` and `objection_to_tokens` decide whether a choice can be resumed exactly behind tokens
of another pod. What they do not reject is exact, as docs/reliability.md says and the tests of token
replay show.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Abilities:
    """The options of the engine that decide what it can resume."""

    is_patched: bool
    vocabulary: int
    max_model_len: int
    is_seed_replayable: bool = True
    has_stepwise_outputs: bool = True


def objection(able: Abilities, params: Any, *, is_stepwise: bool) -> str:
    """Returns why a request with these sampling parameters cannot resume; empty where it can."""
    # Greedy decoding has no use for a seed.
    if params.seed is not None and params.temperature > 0 and not able.is_seed_replayable:
        return "the state of a seeded sampler is not known on this engine"
    if params.prompt_logprobs is not None:
        return "log-probabilities of the prompt are delivered once"
    if getattr(params, "thinking_token_budget", None) is not None:
        return "the state of a thinking budget is not known"
    if is_stepwise and not able.has_stepwise_outputs:
        return "tools and reasoning are parsed several tokens at a time on this engine"
    return "" if able.is_patched else "this version of vLLM is not known to resume requests"


def objection_to_tokens(
    able: Abilities, params: Any, prompt_len: int, choice: ResumedChoice, stops: Collection[int]
) -> str:
    """Returns the same for the tokens of one unfinished choice."""
    ids = choice.token_ids
    if any(not 0 <= i < able.vocabulary for i in ids):
        return "its tokens are not in the vocabulary of this model"
    if len(ids) >= params.max_tokens or prompt_len + len(ids) >= able.max_model_len:
        return "its tokens reach max_tokens, yet its end was not delivered"
    if ids and ids[-1] in stops:
        return "its last token is a stop token, yet its end was not delivered"
    return ""
