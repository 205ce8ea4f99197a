"""What a pod knows of the tokens of a stream, and what it rejects to resume inexactly."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.vllm.replay import replay_state
from autoglm.inference.vllm.replay.replay_state import (
    Abilities,
    ReplayState,
    objection,
    objection_to_tokens,
)
from autoglm.validation.openai_stream import ResumedChoice

ABLE = Abilities(is_patched=True, vocabulary=100, max_model_len=50)


def broken(*choices: v1.ResumedChoice, n: int = 1) -> v1.ChatRequest:
    params = v1.SamplingParams(n=n)
    return v1.ChatRequest(sampling_params=params, resume=v1.Resume(choices=choices))


def test_each_token_is_taken_once() -> None:
    replay = ReplayState()
    replay.record(0, [1, 2])
    replay.record(1, [9])
    replay.record(0, [3])

    assert (replay.take(0), replay.take(0), replay.take(1)) == ([1, 2, 3], [], [9])


def test_a_fresh_stream_replays_nothing() -> None:
    replay = replay_state.of_message(v1.GenerateRequest())

    assert (replay.choices, replay.is_replaying, replay.is_named(0)) == (None, False, False)


def test_a_stream_that_broke_before_its_first_chunk_is_a_resumed_one() -> None:
    replay = replay_state.of_message(broken())

    assert (replay.choices, replay.is_replaying, replay.is_named(0)) == ({}, True, False)


def test_responses_are_known_by_index() -> None:
    second = v1.ResumedChoice(index=1, token_ids=[4, 5], finished=True)

    assert replay_state.of_message(broken(second, n=2)).choices == {
        1: ResumedChoice(1, [4, 5], True)
    }


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (broken(v1.ResumedChoice(index=1)), "beyond the 1 requested"),
        (broken(v1.ResumedChoice(), v1.ResumedChoice()), "names a choice twice"),
    ],
)
def test_a_state_that_contradicts_the_request_is_refused(
    request_: v1.ChatRequest, reason: str
) -> None:
    with pytest.raises(errors.ResumeImpossible, match=reason):
        replay_state.of_message(request_)


def test_only_streams_are_carried_on() -> None:
    replay_state.reject_unary(v1.ChatRequest())
    with pytest.raises(errors.ResumeImpossible, match="no stream"):
        replay_state.reject_unary(broken())


def test_a_state_is_current_inside_only() -> None:
    replay = ReplayState()
    with replay_state.replaying(replay):
        assert replay_state.current_state() is replay
    assert replay_state.current_state() is None


def params(**given: Any) -> Any:
    fields = {"seed": None, "temperature": 1.0, "prompt_logprobs": None, "max_tokens": 10}
    return SimpleNamespace(**fields | given)


@pytest.mark.parametrize(
    ("able", "sampling", "is_stepwise", "reason"),
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
    able: Abilities, sampling: Any, is_stepwise: bool, reason: str
) -> None:
    found = objection(able, sampling, is_stepwise=is_stepwise)

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
