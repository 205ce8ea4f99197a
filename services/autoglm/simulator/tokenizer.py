"""The echo engine's tokenizer: text to ids and back without a vocabulary.

A token is up to three bytes of UTF-8, and its id is those bytes behind a length mark, so that any
process decodes any id and equal texts have equal ids everywhere. Pieces start at words, and a
character may lie across two tokens, as with the byte-level tokenizers of real models.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from autoglm.common import errors

EOS = 0
MAX_TOKEN_BYTES = 3
_WORD = re.compile(rb"\s*[^\s]+|\s+")


def encode(text: str) -> list[int]:
    ids: list[int] = []
    for word in _WORD.findall(text.encode()):
        ids.extend(_word_ids(word))
    return ids


def decode_bytes(token_id: int) -> bytes:
    """Return the token's bytes; empty for the end of a sequence. Raises InvalidRequest."""
    if token_id == EOS:
        return b""
    size = (token_id.bit_length() - 1) // 8
    if not 1 <= size <= MAX_TOKEN_BYTES or token_id >> (8 * size) != 1:
        raise errors.InvalidRequest(f"{token_id} is not a token id of the echo engine")
    return (token_id - (1 << 8 * size)).to_bytes(size, "big")


def decode(ids: Iterable[int]) -> str:
    return b"".join(decode_bytes(i) for i in ids).decode(errors="replace")


def words(ids: Sequence[int]) -> list[list[int]]:
    """Return the ids cut where words begin; joined, they are the ids again."""
    cut: list[list[int]] = []
    for token_id in ids:
        if not cut or decode_bytes(token_id)[:1].isspace():
            cut.append([])
        cut[-1].append(token_id)
    return cut


class Decoder:
    """Text of ids that come one by one; holds back half characters."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        return self._utf8.decode(decode_bytes(token_id))

    def end(self) -> str:
        return self._utf8.decode(b"", final=True)


@lru_cache(maxsize=8192)
def _word_ids(word: bytes) -> tuple[int, ...]:
    pieces = (word[i : i + MAX_TOKEN_BYTES] for i in range(0, len(word), MAX_TOKEN_BYTES))
    return tuple((1 << 8 * len(p)) + int.from_bytes(p, "big") for p in pieces)
