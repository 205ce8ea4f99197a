"""Names the blocks of a prompt, so that equal prefixes have equal names in every process.

A block's name is a hash over its bytes and, through the block before it, over all bytes in front.
Text is hashed as it is and tokens by their ids, so nothing needs a tokenizer; both kinds never
share names. xxHash is fast and not cryptographic: a client that makes two of its prompts collide
gets worse routing, nothing else. Pure; called by the extractors.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import msgspec
from xxhash import xxh3_64_intdigest

BLOCK_TOKENS = 64
"""Tokens in a block: exactly where ids are given, about so many in a block of text."""
BLOCK_BYTES = 4 * BLOCK_TOKENS
MOST_BLOCKS = 4096
"""The rest of a prompt is ignored: all after 262,144 tokens, or 1 MiB of text."""
_PART_TOKENS = 16 * 1024
_MOST_BYTES = MOST_BLOCKS * BLOCK_BYTES
_TEXT, _TOKENS = 1, 2
# How much of a text without turns says which conversation or document it belongs to.
_OPENING_BYTES = 4 * BLOCK_BYTES
_MESSAGE, _PART = b"\x1e", b"\x1f"


class Prefix(msgspec.Struct, frozen=True):
    """`blocks` are the names of the full blocks; `opening` is the name of the conversation.

    The opening covers a chat up to its first message of a user, so that all turns of one
    conversation share it and those of others do not. 0 where there is no prompt to name.
    `is_continued` is true where the conversation has earlier responses. `size` is the number of
    bytes that were named, those after the last full block included.
    """

    blocks: tuple[int, ...] = ()
    opening: int = 0
    is_continued: bool = False
    size: int = 0


NO_PREFIX = Prefix()


class Message(msgspec.Struct, frozen=True):
    """One turn of a chat; `parts` are its texts, media references and tool calls, in order."""

    role: str
    parts: Sequence[str | bytes]


def of_text(text: str | bytes) -> Prefix:
    """Name the blocks of a text."""
    data = text.encode() if isinstance(text, str) else text
    return _named(data, data[:_OPENING_BYTES], _TEXT, len(data))


def of_token_ids(ids: Sequence[int], count: int | None = None) -> Prefix:
    """Name the blocks of token ids, from 0 to 2^32 - 1; `count` is the number of all ids."""
    numbers = array("I")
    # In parts, since each holds up all other threads.
    for start in range(0, min(len(ids), MOST_BLOCKS * BLOCK_TOKENS), _PART_TOKENS):
        numbers.extend(ids[start : min(start + _PART_TOKENS, MOST_BLOCKS * BLOCK_TOKENS)])
    data = numbers.tobytes()
    size = (len(ids) if count is None else count) * numbers.itemsize
    return _named(data, data[:_OPENING_BYTES], _TOKENS, size)


def of_chat(messages: Iterable[Message], tools: Iterable[str | bytes] = ()) -> Prefix:
    """Name the blocks of a chat: tools first and roles before contents, as in chat templates."""
    data, end, size, is_continued = bytearray(), 0, 0, False
    for tool in tools:
        data += _MESSAGE + _bytes(tool)
    for message in messages:
        is_continued = is_continued or message.role == "assistant"
        if len(data) >= _MOST_BYTES:
            size += sum(len(part) for part in message.parts)
            continue
        data += _MESSAGE + message.role.encode()
        for part in message.parts:
            data += _PART + _bytes(part)
        if not end and message.role == "user":
            end = len(data)
    opening, size = memoryview(data)[: end or len(data)], size + len(data)
    return _named(data, opening, _TEXT, size, is_continued)


def _named(
    data: bytes | bytearray,
    opening: bytes | memoryview,
    seed: int,
    size: int,
    is_continued: bool = False,
) -> Prefix:
    if not data:
        return NO_PREFIX
    blocks = _block_names(memoryview(data), seed) if len(data) >= BLOCK_BYTES else ()
    return Prefix(blocks, xxh3_64_intdigest(opening, seed), is_continued, size)


def _block_names(data: memoryview, seed: int) -> tuple[int, ...]:
    names, name = [], seed
    for start in range(0, min(len(data), _MOST_BYTES) - BLOCK_BYTES + 1, BLOCK_BYTES):
        name = xxh3_64_intdigest(data[start : start + BLOCK_BYTES], name)
        names.append(name)
    return tuple(names)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
