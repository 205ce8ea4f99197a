"""Strict JSON decoding with errors that name the field and its value. Called by extractors."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from autoglm.common.errors import InvalidRequest
from autoglm.validation.scan.abridged import Abridged
from autoglm.validation.scan.json_scan import MAX_DEPTH, too_deep

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_ABSENT = object()
_SHOWN_WHOLE_BYTES = 16 * 1024
T = TypeVar("T")


def decode(body: bytes, kind: type[T]) -> T:
    """Return the body as `kind`. Raises InvalidRequest, whatever the bytes are."""
    try:
        # Text can't nest deeper than it has brackets, so most bodies are not decoded twice.
        may_nest = body.count(b"{") + body.count(b"[") > MAX_DEPTH
        if may_nest and not isinstance(body, Abridged) and not depth_within(body, MAX_DEPTH):
            raise too_deep()
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), body) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 at byte {error.start}; send UTF-8") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise too_deep() from error


def depth_within(text: str | bytes, limit: int) -> bool:
    """Return whether JSON text nests at most `limit` levels. Raises as `json.decode` does."""
    level: list[Any] = [msgspec.json.decode(text)]
    for _ in range(limit + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return True
    return False


def _children(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _wrong_type(problem: str, body: bytes) -> InvalidRequest:
    sentence, _, place = problem.partition(" - at `$")
    place = place.rstrip("`")
    missing = _MISSING.search(sentence)
    if missing:
        field = f"{place}.{missing[1]}".lstrip(".")
        return InvalidRequest(f"{field} is missing; it is required", field=field)
    field = place.lstrip(".")
    value = _value_at(place, body)
    shown = ""
    if value is not _ABSENT:
        text = msgspec.json.encode(value).decode()
        shown = f" {text}" if len(text) <= 60 else f" {text[:57]}..."
    expected = sentence[:1].lower() + sentence[1:].replace("`", "")
    return InvalidRequest(f"{field or 'the body'} is{shown}: {expected}", field=field)


def _value_at(place: str, body: bytes) -> Any:
    """Decode the value alone: the body around it may be large."""
    value = msgspec.Raw(body)
    try:
        for name, index in _STEP.findall(place):
            if name:
                value = msgspec.json.decode(value, type=dict[str, msgspec.Raw])[name]
            else:
                value = msgspec.json.decode(value, type=list[msgspec.Raw])[int(index)]
        shown = bytes(value).strip()
        return (
            msgspec.json.decode(shown) if len(shown) <= _SHOWN_WHOLE_BYTES else msgspec.Raw(shown)
        )
    except (LookupError, TypeError, ValueError, RecursionError):
        return _ABSENT
