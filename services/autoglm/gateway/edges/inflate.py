"""Inflates request bodies with `content-encoding: deflate`. Called by the REST edge.

Clients send zlib's format, as in RFC 9110, or a raw deflate stream. Neither contains the length of
its content, so memory is reserved piece by piece.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator

from autoglm.common.errors import InvalidRequest, RequestTooLarge
from autoglm.gateway.request.memory_budget import MemoryReservation

PIECE_BYTES = 64 * 1024
_RAW = -zlib.MAX_WBITS


async def inflated(body: bytes, limit: int, reservation: MemoryReservation) -> bytes:
    """Return the content and reserve its memory.

    Raises InvalidRequest where the body is not one whole stream, RequestTooLarge over the limit,
    QueueFull without memory.
    """
    pieces = inflate(body)
    parts, size = [], 0
    # The first piece takes a few hundred microseconds; a thread inflates the others.
    piece = next(pieces, b"")
    while piece:
        size += len(piece)
        if size > limit:
            raise RequestTooLarge(f"the body has more than {limit} bytes, the limit; send less")
        reservation.take(len(piece))
        parts.append(piece)
        piece = await asyncio.to_thread(next, pieces, b"")
    return b"".join(parts)


def inflate(body: bytes) -> Iterator[bytes]:
    """Yield the content in pieces of at most PIECE_BYTES. Raises InvalidRequest."""
    reader = zlib.decompressobj(zlib.MAX_WBITS if _is_zlib(body) else _RAW)
    try:
        for start in range(0, len(body), PIECE_BYTES):
            rest = body[start : start + PIECE_BYTES]
            while piece := reader.decompress(rest, PIECE_BYTES):
                yield piece
                rest = reader.unconsumed_tail
            if reader.eof:
                break
    except zlib.error as error:
        raise InvalidRequest(
            f"the body is not deflate: {error}", field="content-encoding"
        ) from error
    if not reader.eof or reader.unused_data or start + PIECE_BYTES < len(body):
        raise InvalidRequest(
            "the body is not one whole deflate stream; send it complete", field="content-encoding"
        )


def _is_zlib(body: bytes) -> bool:
    """Return whether the body begins with a zlib header (RFC 1950, 2.2)."""
    return len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
