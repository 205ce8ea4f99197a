"""JSON that somebody else wrote, without what is nested too deeply to be read. Pure.

Free-form fields of a resource may be thousands of levels deep: the API server takes them, and every
parser that recurses fails on them, also on the list that they are a part of. Used where objects of
Kubernetes come in, by operator and gateway; whoever reads a resource refuses what is that deep.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")
DEEPEST: Final = 100
"""Levels of an object that are kept; Kubernetes' own objects have about twenty."""
# A list holds its objects two levels down.
_DEEPEST_OF_LIST = DEEPEST + 2
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def shallow(json: bytes) -> bytes:
    """One object, with null for whatever is nested deeper than DEEPEST."""
    # Nothing can be deeper than there are brackets; ordinary objects end here.
    if json.count(b"{") + json.count(b"[") <= DEEPEST:
        return json
    return _cut(json, DEEPEST)


def decoded(decoder: msgspec.json.Decoder[T], json: bytes) -> T:
    """A list, or a watch's event; its objects may be a little deeper than `shallow` leaves them."""
    try:
        return decoder.decode(json)
    except RecursionError:
        return decoder.decode(_cut(json, _DEEPEST_OF_LIST))


def _cut(json: bytes, deepest: int) -> bytes:
    kept: list[bytes] = []
    depth, start = 0, 0
    for token in _TOKENS.finditer(json):
        match token[0]:
            case b"{" | b"[":
                if depth == deepest:
                    kept.append(json[start : token.start()])
                depth += 1
            case b"}" | b"]":
                depth -= 1
                if depth == deepest:
                    kept.append(b"null")
                    start = token.end()
    return b"".join((*kept, json[start:]))
