"""A heap whose keys may change while items are in it. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
_SPARE = 64


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
