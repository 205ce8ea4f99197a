"""The requests of one priority that wait for a slot, by tenant. Pure; used by the queue.

Within a lane the tenant with the smallest counter is next, and a tenant's own requests are first
come, first served.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T", bound=Hashable)
# A heap is compacted when it has twice its live entries and so many more.
_SPARE = 64


class State(Enum):
    """The state of a request in the queue."""

    NEW = "new"
    WAITING = "waiting"
    ADMITTED = "admitted"
    GONE = "gone"


class Waiter(msgspec.Struct, eq=False):
    """A request in a queue. Only the queue writes `state` and `since`."""

    tenant: str
    tokens: float
    """The estimated tokens of prompt and completion together."""
    size: int
    """The bytes it holds in memory."""
    deadline: float
    priority: int = 0
    """Lower is admitted first."""
    weight: float = 1.0
    """The share of its tenant."""
    state: State = State.NEW
    since: float = 0.0
    """When it entered its state."""


@dataclass(slots=True)
class Backlog:
    """The waiting requests of one tenant in a lane."""

    weight: float
    waiters: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    size: int = 0


class Lane:
    """The waiting requests of one priority.

    `count_of` returns a tenant's counter, `share_of` the part of the queue that so many requests
    and bytes fill.
    """

    def __init__(
        self, count_of: Callable[[str], float], share_of: Callable[[int, int], float]
    ) -> None:
        self._count_of = count_of
        self._share_of = share_of
        self._tenants: dict[str, Backlog] = {}
        self._arrivals: OrderedDict[Waiter, None] = OrderedDict()
        self._turns = LazyHeap[str](lambda t: count_of(t) if t in self._tenants else None)
        self._largest = LazyHeap[str](lambda t: -self.share(t) if t in self._tenants else None)

    def __len__(self) -> int:
        return len(self._arrivals)

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._tenants

    @property
    def oldest(self) -> Waiter:
        """Return the request that has waited longest."""
        return next(iter(self._arrivals))

    def add(self, waiter: Waiter) -> None:
        """Append the request to its tenant's backlog."""
        backlog = self._tenants.setdefault(waiter.tenant, Backlog(waiter.weight))
        backlog.weight = waiter.weight
        backlog.waiters[waiter] = None
        backlog.size += waiter.size
        self._arrivals[waiter] = None
        if len(backlog.waiters) == 1:
            self._turns.touch(waiter.tenant)
        self._largest.touch(waiter.tenant)

    def remove(self, waiter: Waiter) -> None:
        """Remove the request, wherever it is in the lane."""
        backlog = self._tenants[waiter.tenant]
        del backlog.waiters[waiter], self._arrivals[waiter]
        backlog.size -= waiter.size
        if not backlog.waiters:
            del self._tenants[waiter.tenant]

    def touch(self, tenant: str) -> None:
        """Note that the tenant's counter has fallen."""
        self._turns.touch(tenant)

    def next(self) -> Waiter:
        """Return the first request of the tenant with the smallest counter."""
        tenant = self._turns.peek()
        assert tenant is not None, "the lane has requests"
        return next(iter(self._tenants[tenant].waiters))

    def least(self) -> float:
        """Return the smallest counter of the waiting tenants."""
        tenant = self._turns.peek()
        assert tenant is not None, "the lane has requests"
        return self._count_of(tenant)

    def last_of_largest(self) -> Waiter:
        """Return the newest request of the tenant that fills most of the queue by its weight."""
        tenant = self._largest.peek()
        assert tenant is not None, "the lane has requests"
        return next(reversed(self._tenants[tenant].waiters))

    def share(self, tenant: str, extra: Waiter | None = None) -> float:
        """Return the part of the queue that a tenant fills by its weight, with an extra request."""
        backlog = self._tenants.get(tenant)
        count, size = (len(backlog.waiters), backlog.size) if backlog else (0, 0)
        weight = backlog.weight if backlog else 1.0
        if extra is not None:
            count, size, weight = count + 1, size + extra.size, extra.weight
        return self._share_of(count, size) / weight

    def ahead_of(self, tenant: str) -> int:
        """Estimate the requests admitted before the tenant's next one, with tenants in turn."""
        backlog = self._tenants.get(tenant)
        own = len(backlog.waiters) if backlog else 0
        others = len(self._tenants) - (backlog is not None)
        return min(len(self), own + (own + 1) * others)


class LazyHeap(Generic[T]):
    """Finds the item with the smallest key. `key_of` returns an item's key, None once removed.

    Call `touch` when an item is added or its key falls. A key that rises needs no call: the entry
    is corrected when it reaches the top.
    """

    def __init__(self, key_of: Callable[[T], float | None]) -> None:
        self._key_of = key_of
        self._entries: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._most = _SPARE

    def __len__(self) -> int:
        return len(self._entries)

    def touch(self, item: T) -> None:
        """Add the item, or lower its key."""
        key = self._key_of(item)
        if key is None:
            return
        if len(self._entries) >= self._most:
            self._compact()
        heapq.heappush(self._entries, (key, next(self._order), item))

    def peek(self) -> T | None:
        """Return the item with the smallest key, the oldest among equals; None if empty."""
        entries = self._entries
        while entries:
            stored, order, item = entries[0]
            key = self._key_of(item)
            if key == stored:
                return item
            if key is None or key < stored:
                # The item has left, or another entry has its smaller key.
                heapq.heappop(entries)
            else:
                heapq.heapreplace(entries, (key, order, item))
        return None

    def _compact(self) -> None:
        """Keep one entry for each item; `touch` leaves outdated ones behind."""
        items = dict.fromkeys(item for _, _, item in sorted(self._entries))
        keyed = [(self._key_of(item), next(self._order), item) for item in items]
        self._entries = [(key, order, item) for key, order, item in keyed if key is not None]
        heapq.heapify(self._entries)
        self._most = 2 * len(self._entries) + _SPARE
