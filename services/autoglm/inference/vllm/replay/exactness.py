"""Whether an answer can go on exactly behind tokens that another pod has generated.

Decides; `engine_client` asks before it starts a resumed request. What is not refused here is
exact, as docs/reliability.md says and the tests of token replay show.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from autoglm.inference.vllm.replay.tape import Choice


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the engine was started with, as far as it matters here."""

    is_patched: bool
    vocabulary: int
    max_model_len: int
    is_seed_replayable: bool = True
    has_stepwise_outputs: bool = True


def objection(able: Abilities, params: Any, *, is_stepwise: bool) -> str:
    """Why a request with these sampling parameters cannot go on; empty where it can."""
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
    able: Abilities, params: Any, prompt_len: int, choice: Choice, stops: Collection[int]
) -> str:
    """The same for the tokens of one answer that is not finished."""
    ids = choice.token_ids
    if any(not 0 <= i < able.vocabulary for i in ids):
        return "its tokens are not in the vocabulary of this model"
    if len(ids) >= params.max_tokens or prompt_len + len(ids) >= able.max_model_len:
        return "its tokens fill the answer, yet its end was not delivered"
    if ids and ids[-1] in stops:
        return "its tokens end the answer, yet its end was not delivered"
    return ""
