"""What is refused rather than carried on inexactly."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autoglm.inference.vllm.replay.exactness import Abilities, objection, objection_to_tokens
from autoglm.validation.openai_stream import ResumedChoice

ABLE = Abilities(is_patched=True, vocabulary=100, max_model_len=50)


def params(**given: Any) -> Any:
    fields = {"seed": None, "temperature": 1.0, "prompt_logprobs": None, "max_tokens": 10}
    return SimpleNamespace(**fields | given)


@pytest.mark.parametrize(
    ("able", "asked", "is_stepwise", "reason"),
    [
        (ABLE, params(), False, ""),
        (ABLE, params(seed=1), True, ""),
        (replace(ABLE, is_patched=False), params(), False, "version of vLLM"),
        (replace(ABLE, is_seed_replayable=False), params(seed=1), False, "seeded"),
        (replace(ABLE, is_seed_replayable=False), params(seed=1, temperature=0), False, ""),
        (replace(ABLE, is_seed_replayable=False), params(), False, ""),
        (replace(ABLE, has_stepwise_outputs=False), params(), True, "several tokens at a time"),
        (replace(ABLE, has_stepwise_outputs=False), params(), False, ""),
        (ABLE, params(prompt_logprobs=1), False, "of the prompt"),
        (ABLE, params(thinking_token_budget=5), False, "thinking budget"),
    ],
)
def test_what_an_engine_cannot_continue_is_refused(
    able: Abilities, asked: Any, is_stepwise: bool, reason: str
) -> None:
    found = objection(able, asked, is_stepwise=is_stepwise)

    assert reason in found and bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("ids", "prompt_len", "reason"),
    [
        ([], 5, ""),
        ([1, 99], 5, ""),
        ([1, 100], 5, "vocabulary"),
        ([-1], 5, "vocabulary"),
        ([3] * 10, 5, "reach max_tokens"),
        ([3] * 9, 41, "reach max_tokens"),
        ([3] * 9, 40, ""),
        ([3, 7], 5, "is a stop token"),
        ([7, 3], 5, ""),
    ],
)
def test_tokens_that_cannot_be_in_mid_response_are_refused(
    ids: list[int], prompt_len: int, reason: str
) -> None:
    found = objection_to_tokens(ABLE, params(), prompt_len, ResumedChoice(0, ids), {7})

    assert reason in found and bool(found) == bool(reason)
