"""Cuts JSON from other writers where it is nested too deeply to be parsed. Pure.

Free-form fields of a resource may be thousands of levels deep: the API server accepts them, and
every recursive parser fails on them, also on the list that contains them. Applied by operator,
gateway and CLI to objects of Kubernetes; validation then rejects a resource that deep.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")
DEEPEST: Final = 100
"""Most levels of an object that are kept; Kubernetes' own objects have about twenty."""
# The objects of a list are two levels down.
_DEEPEST_OF_LIST = DEEPEST + 2
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def shallow(json: bytes) -> bytes:
    """Return the JSON of one object with null in place of values deeper than DEEPEST."""
    # The depth is at most the number of brackets, which is small for ordinary objects.
    if json.count(b"{") + json.count(b"[") <= DEEPEST:
        return json
    return _cut(json, DEEPEST)


def decoded(decoder: msgspec.json.Decoder[T], json: bytes) -> T:
    """Decode a list or an event of a watch; its objects may be slightly deeper than DEEPEST."""
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
