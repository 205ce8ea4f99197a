"""The tokenizer of the tiny GLM-4: it can spell everything, and knows where outputs end."""

import string
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer

HOME = Path(__file__).parents[2] / "examples" / "tiny-glm"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(HOME / "model" / "tokenizer.json"))


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    data = yaml.safe_load((HOME / "questions.yaml").read_text(encoding="utf-8"))
    return [(item["question"], item["answer"]) for item in data["questions"]]


def test_questions_and_answers_survive_the_round_trip(
    tokenizer: Tokenizer, pairs: list[tuple[str, str]]
) -> None:
    for text in (text for pair in pairs for text in pair):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_printable_character_is_a_token(tokenizer: Tokenizer) -> None:
    for character in string.printable:
        assert len(tokenizer.encode(character).ids) == 1


@pytest.mark.parametrize("text", ["Größe", "日本語", "😀", "\x00\x7f"])
def test_any_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_at_least_four_answers_are_long_enough_to_interrupt(
    tokenizer: Tokenizer, pairs: list[tuple[str, str]]
) -> None:
    lengths = [len(tokenizer.encode(answer).ids) for _, answer in pairs]
    assert sum(150 <= length <= 300 for length in lengths) >= 4
    assert max(lengths) <= 300


@pytest.mark.parametrize(
    "token", ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
)
def test_roles_and_ends_are_single_special_tokens(tokenizer: Tokenizer, token: str) -> None:
    encoded = tokenizer.encode(token)
    assert len(encoded.ids) == 1
    assert tokenizer.decode(encoded.ids, skip_special_tokens=True) == ""


def test_tool_call_tags_stay_visible(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<tool_call></tool_call>").ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call></tool_call>"
