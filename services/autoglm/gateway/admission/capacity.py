"""How much of a model's pods may be used at once: requests, and tokens of KV cache. Pure.

A pod takes its batch (`max_num_seqs`) and a few more, so that its own queue never runs dry. From
there the limit follows what the pod says. Where more requests wait in it than those few for a
second, the limit falls to our share of what it works on; it rises again by a sixteenth a look.
Several gateways see the same waiting and shrink by the same factor, so that they come to equal
shares (additive increase, multiplicative decrease: Chiu and Jain, 1989) without knowing of each
other; taking the others' load off instead would leave everything to who came first.

Tokens are reserved in full, prompt and longest completion. As answers mostly end sooner and share
prefixes, the reservation may exceed the cache by a factor that rises while the cache has room and
falls when pods cannot run their batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autoglm.gateway.endpoints.endpoint import EndpointView, Load

# How long the limits stay as they are, so that what follows from them shows.
LOOK_SECONDS = 0.25
# Bursts that a pod works off by itself are no congestion.
_PATIENCE_SECONDS = 1.0
_RISE = 1 / 16
_TOKENS_RISE, _TOKENS_FALL = 1.05, 0.8
_LEAST_FACTOR, _MOST_FACTOR = 0.25, 32.0
# Of the batches, and of all places at most.
_RESERVED, _MOST_RESERVED = 1 / 32, 1 / 4
# A cache that is fuller than this has no room for a larger reservation.
_KV_ROOM = 0.9
# A batch that is less full than this, while requests wait, wants for cache.
_FULL_BATCH = 0.9


@dataclass(frozen=True, slots=True)
class Capacity:
    """What may be admitted at once."""

    requests: int
    tokens: float = math.inf
    """Prompt and completion of all that are admitted; infinite where the cache is unknown."""
    reserved: int = 0
    """How many of the requests are for tenants that ask for little, where there are such."""

    def without(self, places: int) -> Capacity:
        """What is left beside so many of the requests, and their part of the tokens."""
        if not places or self.requests < 2:
            return self
        left = max(1, self.requests - places)
        return Capacity(left, self.tokens * left / self.requests)


@dataclass(slots=True)
class _Limit:
    """Of one endpoint."""

    requests: float
    load: Load
    congested_since: float = math.inf


class Sizing:
    """The limits of a model's endpoints over time. `spare` requests may wait in each pod."""

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._limits: dict[str, _Limit] = {}
        self._factor = 1.0
        self._starved_since = math.inf
        self._looked = -math.inf

    def look(self, views: Iterable[EndpointView], token_bound: bool, now: float) -> Capacity:
        """The capacity now. `token_bound` says that requests wait for tokens rather than places."""
        views = tuple(views)
        is_due = now - self._looked >= LOOK_SECONDS
        known, self._limits = self._limits, {}
        for view in views:
            limit = known.get(view.url)
            if limit is not None and is_due:
                self._adapt(view, limit, now)
            self._limits[view.url] = limit or self._new_limit(view)
        if is_due:
            self._looked = now
            self._adapt_factor(views, token_bound, now)
        tokens = sum(_kv_tokens(view.live.load) for view in views) * self._factor
        requests = sum(int(limit.requests) for limit in self._limits.values())
        return Capacity(requests, tokens, self._reserved(views, requests))

    def _reserved(self, views: tuple[EndpointView, ...], requests: int) -> int:
        """Room in a batch, not only in what may wait for one."""
        batches = sum(view.live.capacity for view in views)
        places = self._spare * len(views) + max(1, int(batches * _RESERVED))
        return min(places, int(requests * _MOST_RESERVED))

    def _new_limit(self, view: EndpointView) -> _Limit:
        most = view.live.capacity + self._spare
        return _Limit(max(most / 2, most - view.live.others), view.live.load)

    def _adapt(self, view: EndpointView, limit: _Limit, now: float) -> None:
        live, load = view.live, view.live.load
        if load.waiting <= self._spare:
            limit.congested_since = math.inf
            most = live.capacity + self._spare
            limit.requests = min(most, limit.requests + max(1.0, most * _RISE))
            return
        limit.congested_since = min(limit.congested_since, now)
        if now - limit.congested_since >= _PATIENCE_SECONDS and load is not limit.load:
            fits = (load.running + self._spare) / (load.running + load.waiting)
            limit.requests = max(1.0, min(limit.requests, live.in_flight * fits))
            limit.congested_since, limit.load = now, load

    def _adapt_factor(self, views: tuple[EndpointView, ...], token_bound: bool, now: float) -> None:
        loads = [view.live.load for view in views]
        starved = sum(
            load.waiting > self._spare and load.running < _FULL_BATCH * load.max_num_seqs
            for load in loads
        )
        if starved * 2 > len(loads):
            self._starved_since = min(self._starved_since, now)
            if now - self._starved_since >= _PATIENCE_SECONDS:
                self._factor = max(_LEAST_FACTOR, self._factor * _TOKENS_FALL)
                self._starved_since = now
            return
        self._starved_since = math.inf
        if token_bound and not starved and all(x.kv_cache_usage < _KV_ROOM for x in loads):
            self._factor = min(_MOST_FACTOR, self._factor * _TOKENS_RISE)


def _kv_tokens(load: Load) -> float:
    return load.kv_tokens or math.inf
