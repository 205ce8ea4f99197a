"""One request body that is sent to a gateway and to its pod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
Values = Mapping[str, Sequence[Any]]
"""What stands in place of a good body's fields, by their names."""
ABSENT = object()
"""A value that removes the field."""


@dataclass(frozen=True, slots=True)
class Body:
    """One POST; its `name` is unique and says what is special in it."""

    name: str
    path: str
    content: bytes
    content_type: str = JSON
