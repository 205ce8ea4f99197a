"""Places a name (a conversation, a session) on an endpoint so that all gateways place it alike.

Rendezvous hashing: each endpoint draws a number from the name, the highest wins; when an endpoint
goes, only what it had moves (Thaler and Ravishankar, A Name-Based Mapping Scheme for Rendezvous,
1996). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from xxhash import xxh3_64_intdigest

_MASK = (1 << 64) - 1
# Odd, with well-mixed bits: multiplying by it spreads a difference over the bits above it.
_SPREAD = 0x9E3779B97F4A7C15


@lru_cache(maxsize=65536)
def seed_of(url: str) -> int:
    """What an endpoint draws its numbers with."""
    return xxh3_64_intdigest(url.encode())


def draws(name: int, urls: Iterable[str]) -> list[int]:
    """The number that each endpoint draws from the name; the highest has it."""
    return [((name ^ seed) * _SPREAD) & _MASK for seed in map(seed_of, urls)]


def name_of(session: str, salt: int) -> int:
    """Of a session, which a tenant's salt keeps apart from another's of the same id."""
    return xxh3_64_intdigest(session.encode(), salt)
