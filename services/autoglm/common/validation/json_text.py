"""Strict JSON decoding with errors that name the field and its value. Called by extractors."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from autoglm.common.errors import InvalidRequest

# The engine allows a schema to be 64 levels deep; the rest is room for what is around it.
MAX_DEPTH = 100
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_ABSENT = object()
T = TypeVar("T")


def decode(body: bytes, kind: type[T]) -> T:
    """The body as `kind`. Raises InvalidRequest, whatever the bytes are."""
    try:
        _check_depth(body)
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), body) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 at byte {error.start}; send UTF-8") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise _too_deep() from error


def depth_within(text: str | bytes, limit: int) -> bool:
    """Whether JSON text nests at most `limit` levels. Raises as `msgspec.json.decode` does."""
    level: list[Any] = [msgspec.json.decode(text)]
    for _ in range(limit + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return True
    return False


def _check_depth(body: bytes) -> None:
    # Text can't nest deeper than it has brackets, so most bodies are not decoded twice.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and not depth_within(body, MAX_DEPTH):
        raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body nests deeper than {MAX_DEPTH} levels; flatten it")


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
    shown = "" if value is _ABSENT else f" {_shown(value)}"
    expected = sentence[:1].lower() + sentence[1:].replace("`", "")
    return InvalidRequest(f"{field or 'the body'} is{shown}: {expected}", field=field)


def _value_at(place: str, body: bytes) -> Any:
    try:
        value = msgspec.json.decode(body)
        for name, index in _STEP.findall(place):
            value = value[name] if name else value[int(index)]
    except (LookupError, TypeError, ValueError):
        return _ABSENT
    return value


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
