"""What a vocabulary says about the size of text."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from autoglm.inference.vllm.models import bytes_bound, longest_token


@pytest.mark.parametrize(
    ("vocabulary", "size"),
    [
        ([], 0),
        (["a", "Ġthe"], 4),
        # Byte-level BPE: each of these characters is one byte of a Chinese one.
        (["ä½łå¥½"], 6),
        # SentencePiece: characters as they are, and a mark for the space.
        (["▁你好"], 7),
    ],
)
def test_the_longest_token_in_bytes(vocabulary: list[str], size: int) -> None:
    assert longest_token(vocabulary) == size


BYTE_LEVEL = pre_tokenizers.ByteLevel()


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer", "added", "size"),
    [
        (BYTE_LEVEL, None, {}, 4),
        (pre_tokenizers.Sequence([pre_tokenizers.Digits(), BYTE_LEVEL]), None, {}, 4),
        # Composed characters are shorter than their parts.
        (BYTE_LEVEL, normalizers.NFC(), {}, 0),
        # Runs of spaces become one mark.
        (pre_tokenizers.Metaspace(), None, {}, 0),
        (pre_tokenizers.Whitespace(), None, {}, 0),
        # A mask that takes the white space before it, however much.
        (BYTE_LEVEL, None, {5: SimpleNamespace(lstrip=True, rstrip=False)}, 0),
        (BYTE_LEVEL, None, {5: SimpleNamespace(lstrip=False, rstrip=False)}, 4),
    ],
)
def test_text_is_bounded_by_tokens_only_where_none_of_it_is_lost(
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None,
    added: dict[int, object],
    size: int,
) -> None:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    tokenizer = SimpleNamespace(
        backend_tokenizer=backend,
        added_tokens_decoder=added,
        get_vocab=lambda: {"a": 0, "Ġthe": 1},
    )
    assert bytes_bound(tokenizer) == size


def test_text_is_not_bounded_without_a_tokenizer_that_can_be_read() -> None:
    assert bytes_bound(None) == 0
    assert bytes_bound(SimpleNamespace(get_vocab=lambda: {"a": 0})) == 0
