"""Which pod templates are the same: a short hash of what a replica is made of. Pure.

Two templates with the same content have the same hash, in whatever order their fields come, today
and after an upgrade; anything that would change a running replica changes it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

_DIGITS = 8


def revision_of(template: Any) -> str:
    return digest(template)[:_DIGITS]


def digest(value: Any) -> str:
    """Of a value as JSON, independent of the order of keys."""
    text = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]
