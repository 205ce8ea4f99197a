import random

import pytest

from autoglm import v1
from autoglm.simulator import tokenizer
from autoglm.simulator.completion import EchoCompletion, StopFinder, TokenOutput, logprob


def say(text: str, max_tokens: int = 100, index: int = 0, **params: object) -> list[TokenOutput]:
    sampling = v1.SamplingParams(**params)  # type: ignore[arg-type]  # a table of fields
    completion = EchoCompletion(tokenizer.encode(text), sampling, max_tokens, index)
    pieces = [completion.step()]
    while not pieces[-1].finish_reason:
        pieces.append(completion.step())
    return pieces


def text_of(pieces: list[TokenOutput]) -> str:
    return "".join(p.text for p in pieces)


def test_it_says_the_words_and_stops() -> None:
    pieces = say("one two three")
    assert text_of(pieces) == "one two three"
    assert pieces[-1] == TokenOutput(tokenizer.EOS, "", v1.FINISH_REASON_STOP)


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_max_tokens_is_reached_and_never_passed(limit: int) -> None:
    pieces = say("a few words", limit, ignore_eos=True)
    assert len(pieces) == limit
    assert pieces[-1].finish_reason == v1.FINISH_REASON_LENGTH


def test_min_tokens_is_reached_with_filler() -> None:
    pieces = say("hi", min_tokens=20)
    assert len(pieces) >= 20
    assert pieces == say("hi", min_tokens=20)


@pytest.mark.parametrize("stop", ["o th", "two", "e", " three"])
def test_a_stop_string_is_found_across_tokens(stop: str) -> None:
    whole = "one two three four"
    pieces = say(whole, stop=[stop])
    assert text_of(pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == v1.FINISH_REASON_STOP
    assert pieces[-1].stop_reason == stop


def test_a_stop_string_can_stay_in_the_text() -> None:
    assert text_of(say("one two", stop=["tw"], include_stop_str_in_output=True)) == "one tw"


def test_stop_strings_wait_for_min_tokens() -> None:
    assert text_of(say("one two one two", stop=["one"], min_tokens=4)).startswith("one two")


def test_half_a_stop_string_at_the_end_is_text() -> None:
    assert text_of(say("one tw", stop=["two"])) == "one tw"


def test_a_stop_token_ends() -> None:
    ids = tokenizer.encode("one two three")
    pieces = say("one two three", stop_token_ids=[ids[1]])
    assert [p.token_id for p in pieces] == ids[:2]
    assert pieces[-1].stop_reason == str(ids[1])


def test_temperature_shuffles_words_by_seed() -> None:
    text = " one two three four five six seven eight"
    once = text_of(say(text, temperature=1.0, seed=5))
    assert once == text_of(say(text, temperature=1.0, seed=5))
    assert once != text
    assert sorted(once.split()) == sorted(text.split())
    assert once != text_of(say(text, temperature=1.0, seed=5, index=1))


def test_split_characters_come_out_whole() -> None:
    pieces = say("naïve 東京 🚀🚀 ok")
    assert text_of(pieces) == "naïve 東京 🚀🚀 ok"
    assert all("�" not in p.text for p in pieces)


def test_stop_finder_agrees_with_searching_the_whole_text() -> None:
    rng = random.Random(7)
    for _ in range(300):
        text = "".join(rng.choices("ab", k=30))
        stops = ["".join(rng.choices("ab", k=rng.randint(2, 6))) for _ in range(2)]
        finder, out, stop = StopFinder(stops, False), "", ""
        for start in range(0, len(text), 3):
            new, stop = finder.feed(text[start : start + 3])
            out += new
            if stop:
                break
        # Whichever is complete first ends the text, where it begins.
        prefixes = (text[:end] for end in range(3, 33, 3))
        first = next((p for p in prefixes if any(s in p for s in stops)), "")
        expected = min([first.find(s) for s in stops if s in first], default=len(text))
        assert out + ("" if stop else finder.end()) == text[:expected]


def test_logprobs_have_as_many_alternatives_as_requested() -> None:
    entry = logprob(tokenizer.encode("hey")[0], 3)
    assert entry.rank == 1
    assert [t.rank for t in entry.top_logprobs] == [1, 2, 3]
    assert entry.top_logprobs[0].token == entry.token
    assert len({t.token_id for t in entry.top_logprobs}) == 3
