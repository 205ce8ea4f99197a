"""Hash rings of a model's endpoints, to find those next to a position without a full scan.

Consistent hashing with one point an endpoint; routing by load compensates the imbalance. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.routing.affinity import seed_of


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
