"""What a vocabulary says about the size of text."""

import pytest

from autoglm.inference.vllm.models import longest_token


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
