"""Identifies pod templates by a short hash of their content. Pure.

Two templates with the same content have the same hash, independent of the order of their fields,
today and after an upgrade; every change of a template changes it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

_DIGITS = 8


def revision_of(template: Any) -> str:
    """Return the revision of a pod template: 8 hexadecimal digits."""
    return digest(template)[:_DIGITS]


def digest(value: Any) -> str:
    """Return the hash of a value as JSON, independent of the order of keys."""
    text = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]
