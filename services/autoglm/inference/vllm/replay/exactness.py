"""Decides whether a choice can be resumed exactly behind tokens of another pod.

`engine_client` calls it before it starts a resumed request. What is not rejected here is exact, as
docs/reliability.md says and the tests of token replay show.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from autoglm.validation.openai_stream import ResumedChoice


@dataclass(frozen=True, slots=True)
class Abilities:
    """The options that the engine was started with, as far as they matter here."""

    is_patched: bool
    vocabulary: int
    max_model_len: int
    is_seed_replayable: bool = True
    has_stepwise_outputs: bool = True


def objection(able: Abilities, params: Any, *, is_stepwise: bool) -> str:
    """Return why a request with these sampling parameters cannot resume; empty where it can."""
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
    """Return the same for the tokens of one unfinished choice."""
    ids = choice.token_ids
    if any(not 0 <= i < able.vocabulary for i in ids):
        return "its tokens are not in the vocabulary of this model"
    if len(ids) >= params.max_tokens or prompt_len + len(ids) >= able.max_model_len:
        return "its tokens reach max_tokens, yet its end was not delivered"
    if ids and ids[-1] in stops:
        return "its last token is a stop token, yet its end was not delivered"
    return ""
