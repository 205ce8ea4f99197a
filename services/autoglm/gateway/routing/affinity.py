"""Rendezvous hashing of conversations and sessions to endpoints, equal on all gateways. Pure.

Each endpoint draws a number from the name, and the highest wins; when an endpoint is removed, only
its own names move (Thaler and Ravishankar, A Name-Based Mapping Scheme for Rendezvous, 1996).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from xxhash import xxh3_64_intdigest

_MASK = (1 << 64) - 1
# An odd number with well-mixed bits: multiplication spreads a difference over the higher bits.
_SPREAD = 0x9E3779B97F4A7C15


@lru_cache(maxsize=65536)
def seed_of(url: str) -> int:
    """Return the seed of an endpoint's draws."""
    return xxh3_64_intdigest(url.encode())


def draws(name: int, urls: Iterable[str]) -> list[int]:
    """Return the number that each endpoint draws from the name; the highest wins."""
    return [((name ^ seed) * _SPREAD) & _MASK for seed in map(seed_of, urls)]


def name_of(session: str, salt: int) -> int:
    """Return the name of a session; the salt separates equal session ids of tenants."""
    return xxh3_64_intdigest(session.encode(), salt)
