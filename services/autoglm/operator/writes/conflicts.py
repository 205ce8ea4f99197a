"""Parses conflicts of server-side apply, and removes fields from a body. Pure.

A field that was changed manually (kubectl edit, patch, scale) is overwritten. A field that another
applier declares (Argo CD, Flux, a second controller) is left to it and reported: two appliers that
force each other would write in a loop.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_MESSAGE = re.compile(r'^conflict with "(?P<manager>(?:[^"\\]|\\.)*)"(?P<rest>.*)$', re.DOTALL)
_KEYED = re.compile(r"^\[((?:[^\]\"]|\"(?:[^\"\\]|\\.)*\")*)\]")


@dataclass(frozen=True, slots=True)
class Contested:
    """A field whose owner sets another value than the operator."""

    field: str
    manager: str
    by_hand: bool
    """Whether it was changed by an update, not declared by another applier."""


def contested(causes: Iterable[Mapping[str, str]]) -> tuple[Contested, ...]:
    """Return the conflicts over fields among the causes of a 409."""
    found = []
    for cause in causes:
        match = _MESSAGE.match(cause.get("message", ""))
        if cause.get("reason") == "FieldManagerConflict" and match:
            # The API server names the version ("using apps/v1") for updates only.
            by_hand = " using " in match["rest"]
            found.append(Contested(cause.get("field", ""), match["manager"], by_hand))
    return tuple(found)


def without(body: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `body` without `fields`, which are paths as the API server writes them."""
    rest = copy.deepcopy(dict(body))
    for field in fields:
        _remove(rest, field)
    return rest


def _remove(value: Any, path: str) -> None:
    if path.startswith(".") and isinstance(value, dict):
        # Keys may contain dots, so only the keys of the body show where one ends.
        fitting = [k for k in value if _continues(path[1:], k)]
        if fitting:
            key = max(fitting, key=len)
            _step(value, key, path[1 + len(key) :])
    elif (keyed := _KEYED.match(path)) and isinstance(value, list):
        index = next((i for i, item in enumerate(value) if _selected(item, i, keyed[1])), None)
        if index is not None:
            _step(value, index, path[keyed.end() :])


def _step(parent: Any, key: Any, rest: str) -> None:
    if rest:
        _remove(parent[key], rest)
    else:
        del parent[key]


def _continues(path: str, key: str) -> bool:
    return path == key or (path.startswith(key) and path[len(key)] in ".[")


def _selected(item: Any, index: int, selector: str) -> bool:
    """Return whether `name="engine",port=80`, `="value"` or `3` selects an item of a list."""
    if selector.isdigit():
        return index == int(selector)
    wanted = json.loads("{" + re.sub(r"(^|,)(\w*)=", r'\1"\2":', selector) + "}")
    if "" in wanted:
        return bool(item == wanted[""])
    return isinstance(item, dict) and all(item.get(k) == v for k, v in wanted.items())
