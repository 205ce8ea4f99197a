"""Reads values of a raw document. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from autoglm.api.problem import Problem
from autoglm.api.spec.engine import Engine

Document = Mapping[str, Any]
Rule = Callable[[Document], Iterator[Problem]]


def at(document: Any, path: str) -> Any:
    """Return the value at a dotted path, None if a key is missing."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, (dict, Mapping)) else None
    return document


def list_at(document: Document, path: str) -> list[Any]:
    """Return the list at a dotted path, empty if there is none."""
    value = at(document, path)
    return value if isinstance(value, list) else []


def engine_of(document: Document) -> Any:
    """Return the type of the engine."""
    default: str = Engine.model_fields["type"].default
    return at(document, "spec.engine.type") or default
