"""Consistent hashing of conversations and sessions to endpoints, equal on all gateways. Pure.

Rendezvous hashing: each endpoint draws a number from the name, and the highest wins; when an
endpoint is removed, only its own names move (Thaler and Ravishankar, A Name-Based Mapping Scheme
for Rendezvous, 1996). For models with too many endpoints to draw from all, a ring with one point an
endpoint finds those next to a position; routing by load compensates the imbalance.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache

from xxhash import xxh3_64_intdigest

from autoglm.gateway.endpoints.endpoint import EndpointView

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


class Ring:
    """The endpoints of one model, by URL and by the hash of it. Rebuilt when they change."""

    def __init__(self, views: Sequence[EndpointView]) -> None:
        self.views = views
        self.by_url = {view.url: view for view in views}
        by_seed = sorted((seed_of(url), url) for url in self.by_url)
        self._seeds = [seed for seed, _ in by_seed]
        self._urls = [url for _, url in by_seed]

    def around(self, place: int, count: int) -> list[str]:
        """Return the next `count` endpoints from a position."""
        start = bisect_left(self._seeds, place)
        return [*self._urls[start : start + count], *self._urls][:count]


class Rings:
    """The rings of the most recently routed models."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._by_views: dict[int, Ring] = {}

    def of(self, views: Sequence[EndpointView]) -> Ring:
        """Return the ring of these endpoints, built once for each sequence."""
        # A ring keeps its sequence alive, so that no other one can have the same id.
        ring = self._by_views.get(id(views))
        if ring is None:
            while len(self._by_views) >= self._most:
                del self._by_views[next(iter(self._by_views))]
            ring = self._by_views[id(views)] = Ring(views)
        return ring
