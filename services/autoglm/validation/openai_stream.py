"""Shapes of OpenAI's event streams and of token replay in them. Pure.

A decoder reads the fields of its type and skips all others; a reader that needs more fields adds
them in a subclass.

A pod that finds the header `REPLAY_HEADER` writes a comment before each event of a stream of chat
or text completions, with the ids of all tokens since the last event of that choice; a body with
`RESUME_FIELD` resumes a broken stream behind such tokens:

    : autoglm-tokens {"index":0,"ids":[17,4]}
    data: {...}
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

REPLAY_HEADER = "x-autoglm-replay"
REPLAY_PATHS = ("/v1/chat/completions", "/v1/completions")
RESUME_FIELD = "autoglm_resume"
TOKEN_COMMENT = b": autoglm-tokens "
DATA = b"data: "
DONE = b"data: [DONE]"


class Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class Event(msgspec.Struct):
    choices: list[Choice] = []


class Tokens(msgspec.Struct):
    """The content of a token comment."""

    index: int
    ids: list[int]


class ResumedChoice(msgspec.Struct, frozen=True):
    """The progress of one choice: all ids that were delivered, and whether it was complete."""

    index: int = 0
    token_ids: list[int] = []
    finished: bool = False


class Resume(msgspec.Struct, frozen=True):
    """`autoglm.v1.Resume`, as JSON has it."""

    choices: list[ResumedChoice] = []


def token_comment(index: int, token_ids: Iterable[int]) -> bytes:
    """Render the comment before an event, with its line end."""
    ids = ",".join(map(str, token_ids)).encode()
    return TOKEN_COMMENT + b'{"index":%d,"ids":[%s]}\n' % (index, ids)
