"""What a pod knows of the tokens of a stream."""

import pytest

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.vllm.replay import tape
from autoglm.inference.vllm.replay.tape import Choice, ReplayState


def broken(*choices: v1.ResumedChoice, n: int = 1) -> v1.ChatRequest:
    params = v1.SamplingParams(n=n)
    return v1.ChatRequest(sampling_params=params, resume=v1.Resume(choices=choices))


def test_each_token_is_taken_once() -> None:
    played = ReplayState()
    played.record(0, [1, 2])
    played.record(1, [9])
    played.record(0, [3])

    assert (played.take(0), played.take(0), played.take(1)) == ([1, 2, 3], [], [9])


def test_a_fresh_stream_replays_nothing() -> None:
    played = tape.of_message(v1.GenerateRequest())

    assert (played.choices, played.is_replaying, played.is_named(0)) == (None, False, False)


def test_a_stream_that_broke_before_its_first_chunk_is_a_resumed_one() -> None:
    played = tape.of_message(broken())

    assert (played.choices, played.is_replaying, played.is_named(0)) == ({}, True, False)


def test_responses_are_known_by_index() -> None:
    second = v1.ResumedChoice(index=1, token_ids=[4, 5], finished=True)

    assert tape.of_message(broken(second, n=2)).choices == {1: Choice(1, [4, 5], True)}


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
        tape.of_message(request_)


def test_only_streams_are_carried_on() -> None:
    tape.reject_unary(v1.ChatRequest())
    with pytest.raises(errors.ResumeImpossible, match="no stream"):
        tape.reject_unary(broken())


def test_a_tape_is_current_inside_only() -> None:
    played = ReplayState()
    with tape.replaying(played):
        assert tape.current_tape() is played
    assert tape.current_tape() is None
