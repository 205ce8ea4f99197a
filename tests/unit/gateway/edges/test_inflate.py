"""Bodies with content-encoding deflate, in both of its forms."""

from __future__ import annotations

import contextlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.errors import InvalidRequest, QueueFull, RequestTooLarge
from autoglm.gateway.edges.inflate import PIECE_BYTES, inflate, inflated
from autoglm.gateway.request.memory_budget import Memory

LIMIT = 2**20


def packed(content: bytes, *, raw: bool) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS if raw else zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize("raw", [False, True])
@given(content=st.binary(max_size=3 * PIECE_BYTES), zeros=st.integers(0, 3 * PIECE_BYTES))
def test_all_of_the_content_comes_in_bounded_pieces(raw: bool, content: bytes, zeros: int) -> None:
    whole = content + bytes(zeros)
    pieces = list(inflate(packed(whole, raw=raw)))
    assert b"".join(pieces) == whole
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)


@pytest.mark.parametrize("raw", [False, True])
@given(content=st.binary(max_size=300), cut=st.integers(1, 20))
def test_what_is_not_whole_is_rejected(raw: bool, content: bytes, cut: int) -> None:
    body = packed(content, raw=raw)
    for broken in (body[: max(0, len(body) - cut)], body + b"x", body + bytes(PIECE_BYTES)):
        with pytest.raises(InvalidRequest):
            list(inflate(broken))


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_rejected(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        list(inflate(body))


async def test_no_more_is_inflated_than_the_limit() -> None:
    bomb = packed(bytes(1000 * LIMIT // 10), raw=False)
    with Memory(4 * LIMIT).open("t") as hold:
        with pytest.raises(RequestTooLarge):
            await inflated(bomb, LIMIT, hold)
        assert hold.size <= LIMIT


async def test_content_counts_in_the_memory_of_requests() -> None:
    body = packed(bytes(LIMIT), raw=True)
    with Memory(4 * LIMIT).open("t") as hold:
        assert len(await inflated(body, LIMIT, hold)) == hold.size == LIMIT
    with Memory(LIMIT).open("t") as hold, pytest.raises(QueueFull):
        await inflated(body, LIMIT, hold)
