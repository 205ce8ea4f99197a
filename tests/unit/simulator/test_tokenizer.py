import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.errors import InvalidRequest
from autoglm.simulator import tokenizer


@given(st.text())
def test_text_survives_the_round_trip(text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_cutting_at_words_loses_nothing(text: str) -> None:
    ids = tokenizer.encode(text)
    assert [i for word in tokenizer.words(ids) for i in word] == ids


@given(st.text())
def test_text_of_single_tokens_adds_up(text: str) -> None:
    decoder = tokenizer.Decoder()
    pieces = [decoder.feed(i) for i in tokenizer.encode(text)]
    assert "".join(pieces) + decoder.end() == text


def test_ids_are_stable() -> None:
    assert tokenizer.encode("hello you") == [0x1_68656C, 0x1_0000 + 0x6C6F, 0x1_20796F, 0x175]


@pytest.mark.parametrize("token_id", [1, 0xFF, 0x200, 0x2_000000, 2**32 - 1])
def test_foreign_ids_are_refused(token_id: int) -> None:
    with pytest.raises(InvalidRequest):
        tokenizer.decode_bytes(token_id)
