"""Token counts in OpenAI answers, for spans that record them. Pure; called by the REST edge.

The only place where the gateway looks into an answer, and only where a span is recorded.
"""

from __future__ import annotations

import msgspec

from autoglm.gateway.call import Usage

# How much of a stream's end is kept: room for the chunk with the usage and what follows it.
TAIL_BYTES = 8 * 1024
_DATA = b"data: {"


class _Counted(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    usage: _Counted | None = None
    choices: list[_Choice] = []


def usage_in(answer: bytes) -> Usage | None:
    """What a JSON answer, or the end of an event stream, says; None where it says nothing."""
    if answer.lstrip()[:1] == b"{":
        return _usage([answer])
    lines = [line[len(_DATA) - 1 :] for line in answer.splitlines() if line.startswith(_DATA)]
    return _usage(lines)


def _usage(pieces: list[bytes]) -> Usage | None:
    found = [answer for piece in pieces if (answer := _decoded(piece))]
    counted = next((a.usage for a in reversed(found) if a.usage), None)
    reasons = [c.finish_reason for a in found for c in a.choices if c.finish_reason]
    if counted is None:
        return None
    return Usage(counted.prompt_tokens, counted.completion_tokens, tuple(reasons))


def _decoded(piece: bytes) -> _Answer | None:
    try:
        return msgspec.json.decode(piece, type=_Answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None  # Another kind of answer, or half a line at the cut.
