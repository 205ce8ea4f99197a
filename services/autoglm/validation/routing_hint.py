"""Encodes what routing needs of a request as metadata of a few bytes.

Our clients send it, so that a gateway whose data plane holds the body need not read the body. It is
only a claim: the caller is authenticated without it, the pod validates the request itself, and the
tokens that the pod has counted are charged. Pure.
"""

from __future__ import annotations

import struct

from autoglm.validation.prefix_hash import Prefix
from autoglm.validation.request_info import Operation, Prompt, RequestInfo, Sampling

HINT_METADATA = "autoglm-request-info-bin"
# The most block names that are sent; text after them, 16 KiB, is ignored by routing.
MOST_BLOCKS = 64
_VERSION = 1
_OPERATIONS = (Operation.GENERATE, Operation.CHAT)
# Version, operation, continued, n, priority, bytes, tokens, most tokens, opening, bytes that were
# named; lengths of model, session and blocks.
_HEAD = struct.Struct("<BB?BiIiiQIBBB")
_UNKNOWN = -1
_MOST_SIZE, _MOST_TOKENS = 2**32 - 1, 2**31 - 1


def write_hint(info: RequestInfo) -> bytes:
    """Encode the request; empty if it names no model, or a name is too long."""
    model, session = info.model.encode(), info.session.encode()
    if info.operation not in _OPERATIONS or not model or max(len(model), len(session)) > 255:
        return b""
    blocks, most = info.prefix.blocks[:MOST_BLOCKS], info.sampling.most_tokens
    known = [p.tokens for p in info.prompts or () if p.tokens is not None]
    try:
        head = _HEAD.pack(
            _VERSION,
            _OPERATIONS.index(info.operation),
            info.prefix.is_continued,
            info.sampling.n or 1,
            info.priority,
            min(info.size, _MOST_SIZE),
            min(sum(known), _MOST_TOKENS) if known else _UNKNOWN,
            _UNKNOWN if most is None else most,
            info.prefix.opening,
            min(info.prefix.size, _MOST_SIZE),
            *(len(model), len(session), len(blocks)),
        )
    except struct.error:
        # Numbers that are out of range; the validator has words for them.
        return b""
    return head + model + session + struct.pack(f"<{len(blocks)}Q", *blocks)


def read_hint(data: bytes, *, streaming: bool) -> RequestInfo | None:
    """Decode a hint to the facts that it has; None if `write_hint` would not write it."""
    try:
        version, operation, continued, n, priority, size, tokens, most, opening, named, *lengths = (
            _HEAD.unpack_from(data)
        )
        of_model, of_session, of_blocks = lengths
        at = _HEAD.size + of_model
        blocks = struct.unpack(f"<{of_blocks}Q", data[at + of_session :])
        model, session = data[_HEAD.size : at].decode(), data[at : at + of_session].decode()
        kind = _OPERATIONS[operation]
    except (struct.error, UnicodeDecodeError, IndexError):
        return None
    if version != _VERSION or not model:
        return None
    return RequestInfo(
        kind,
        model,
        streaming=streaming,
        prompts=(Prompt("prompt", size, None if tokens < 0 else tokens),),
        sampling=Sampling(n=n, max_tokens=None if most < 0 else most),
        priority=priority,
        session=session,
        prefix=Prefix(blocks, opening, continued, named),
    )
