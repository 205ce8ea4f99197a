"""Computes the slots of a model's pods, the tokens of their KV caches, and the pace. Pure.

A pod gets its batch (`max_num_seqs`) and a few spare requests, so that its own queue is never
empty. The limit then follows the load reports. If more than the spare requests wait in a pod for a
second, the limit falls to this gateway's share of what the pod runs; it rises again by a sixteenth
per check. Several gateways see the same waiting requests and reduce their limits by the same
factor, so that they converge to equal shares without coordination (additive increase,
multiplicative decrease: Chiu and Jain, 1989). Subtracting the load of others instead would leave
all slots to the first gateway.

Tokens are reserved for the prompt and the longest completion. Most responses end sooner and share
prefixes, so reservations may exceed the cache by a factor that rises while the cache has room and
falls when pods cannot run a full batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autoglm.gateway.endpoints.endpoint import EndpointView, Load

# The least time between two adaptations of the limits, so that each takes effect first.
CHECK_SECONDS = 0.25
# Shorter bursts are no congestion: the pod works them off by itself.
_PATIENCE_SECONDS = 1.0
_RISE = 1 / 16
_TOKENS_RISE, _TOKENS_FALL = 1.05, 0.8
_LEAST_FACTOR, _MOST_FACTOR = 0.25, 32.0
# Slots reserved: a part of the batches, and at most a part of all slots.
_RESERVED, _MOST_RESERVED = 1 / 32, 1 / 4
# KV-cache use above which reservations do not grow.
_KV_ROOM = 0.9
# A batch less full than this while requests wait in the pod is limited by the KV cache.
_FULL_BATCH = 0.9
# The seconds of saturated time over which the rate is averaged.
_SPAN_SECONDS = 10.0
# The least measured time for a rate.
_LEAST_SECONDS = 0.2
# The weight of one request in the mean time that a slot is held.
_SHARE = 0.02
_FEW = 20
# The margin on an estimate of one request's time, and its bound in mean times.
_MARGIN, _MOST = 1.2, 2.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """The requests and tokens that may be admitted at once."""

    requests: int
    tokens: float = math.inf
    """Prompt and completion tokens of all admitted requests; infinite if the cache is unknown."""
    reserved: int = 0
    """Slots that may be reserved for tenants with few requests."""

    def without(self, slots: int) -> Capacity:
        """Return the capacity less so many slots and their part of the tokens."""
        if not slots or self.requests < 2:
            return self
        left = max(1, self.requests - slots)
        return Capacity(left, self.tokens * left / self.requests)


@dataclass(slots=True)
class _Limit:
    """The limit of one endpoint."""

    requests: float
    load: Load
    congested_since: float = math.inf


class Sizing:
    """Adapts the limits of a model's endpoints. `spare` requests may wait in each pod."""

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._limits: dict[str, _Limit] = {}
        self._factor = 1.0
        self._starved_since = math.inf
        self._checked = -math.inf

    def update(self, views: Iterable[EndpointView], token_bound: bool, now: float) -> Capacity:
        """Return the capacity now. `token_bound`: requests wait for tokens rather than slots."""
        views = tuple(views)
        is_due = now - self._checked >= CHECK_SECONDS
        known, self._limits = self._limits, {}
        for view in views:
            limit = known.get(view.url)
            if limit is not None and is_due:
                self._adapt(view, limit, now)
            most = view.live.capacity + self._spare
            start = max(most / 2, most - view.live.others)
            self._limits[view.url] = limit or _Limit(start, view.live.load)
        if is_due:
            self._checked = now
            self._adapt_factor(views, token_bound, now)
        tokens = sum(view.live.load.kv_tokens or math.inf for view in views) * self._factor
        requests = sum(int(limit.requests) for limit in self._limits.values())
        return Capacity(requests, tokens, self._reserved(views, requests))

    def _reserved(self, views: tuple[EndpointView, ...], requests: int) -> int:
        """Return the spare requests and a part of the batches: a reserved slot runs at once."""
        batches = sum(view.live.capacity for view in views)
        slots = self._spare * len(views) + max(1, int(batches * _RESERVED))
        return min(slots, int(requests * _MOST_RESERVED))

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


class Pace:
    """The rate of released slots while requests wait, and the time that a slot is held.

    Only time in which requests wait is measured; otherwise an idle hour would count as slow pods.
    Before any request has waited, the rate follows from the time that slots are held (Little's
    law).
    """

    def __init__(self) -> None:
        self._released = 0.0
        self._seconds = 0.0
        self._busy_since: float | None = None
        self._ended = 0
        self._hold = 0.0
        self._hold_per_token = 0.0

    def busy(self, is_busy: bool, now: float) -> None:
        """Record whether requests wait from now on."""
        if self._busy_since is not None:
            self._advance(now, self._busy_since)
        self._busy_since = now if is_busy else None

    def released(self, seconds: float, tokens: float, now: float) -> None:
        """Record a slot that a request of so many tokens held for `seconds`."""
        if self._busy_since is not None:
            self._advance(now, self._busy_since)
            self._busy_since = now
            self._released += 1
        self._ended += 1
        share = max(_SHARE, 1 / self._ended)
        self._hold += share * (seconds - self._hold)
        self._hold_per_token += share * (seconds / max(1.0, tokens) - self._hold_per_token)

    def rate(self, in_service: int) -> float | None:
        """Return the slots released a second with so many requests in service; None if unknown.

        Returns the larger of the measured and the derived rate: a rate measured while all pods
        stalled would otherwise reject requests, so that none would wait and correct it.
        """
        measured = self._released / self._seconds if self._seconds >= _LEAST_SECONDS else 0.0
        follows = in_service / self._hold if self._ended and self._hold > 0 else 0.0
        return max(measured, follows) or None

    def hold(self, tokens: float) -> float:
        """Estimate the seconds that a request of so many tokens holds a slot; 0 while unknown.

        The estimate errs on the long side: one that is too short wastes a slot until the deadline,
        one that is too long only a wait. Most responses end long before `max_tokens`, so the
        estimate is at most twice the mean.
        """
        if self._ended < _FEW:
            return 0.0
        return min(_MOST * self._hold, _MARGIN * self._hold_per_token * tokens)

    def _advance(self, now: float, since: float) -> None:
        kept = math.exp(-max(0.0, now - since) / _SPAN_SECONDS)
        self._released *= kept
        self._seconds = self._seconds * kept + _SPAN_SECONDS * (1 - kept)
