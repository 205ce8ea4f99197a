"""Streams the contents of the pod's KV cache to each gateway: first all of it, then every change.

Changes wait in a bounded buffer. A subscriber that does not read them in time is disconnected and
must subscribe again, so a slow subscriber uses bounded memory and delays no other one. Read by
`servicers.worker`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from autoglm.common.errors import RateLimited, StreamBroken
from autoglm.inference.kv.ledger import Kind, KvLedger

MOST_SUBSCRIBERS = 128
MOST_WAITING = 65536
"""Names that may wait to be taken, beyond those that a stream begins with."""
_MESSAGE_NAMES = 8192
Change = tuple[Kind, list[int]]


class Subscriber:
    """One stream's changes. `news` is set while there are some."""

    def __init__(self, held: Sequence[int]) -> None:
        self.news = asyncio.Event()
        self._changes: deque[Change] = deque()
        self._waiting = 0
        self._is_cut = False
        self._append("cleared", ())
        self._append("stored", held)

    def put(self, kind: Kind, names: Sequence[int]) -> None:
        self._waiting += len(names)
        if self._waiting > MOST_WAITING:
            self._is_cut = True
            self._changes.clear()
        if not self._is_cut:
            self._append(kind, names)
        self.news.set()

    def take(self) -> list[Change]:
        """Return the changes since the last call. Raises StreamBroken where they were too many."""
        if self._is_cut:
            raise StreamBroken(
                f"more than {MOST_WAITING} changes of the KV cache were not read; subscribe again"
            )
        changes, self._waiting = list(self._changes), 0
        self._changes.clear()
        self.news.clear()
        return changes

    def _append(self, kind: Kind, names: Sequence[int]) -> None:
        """Append a change, joined to the last one where that is of the same kind and not long."""
        if kind == "cleared":
            self._changes.clear()
            self._changes.append((kind, []))
        for start in range(0, len(names), _MESSAGE_NAMES):
            piece = names[start : start + _MESSAGE_NAMES]
            last = self._changes[-1] if self._changes else None
            if last and last[0] == kind and len(last[1]) + len(piece) <= _MESSAGE_NAMES:
                last[1].extend(piece)
            else:
                self._changes.append((kind, list(piece)))
        self.news.set()


class KvFeed:
    """The ledger and those who follow it."""

    def __init__(self, most_names: int) -> None:
        self.ledger = KvLedger(most_names, self._publish)
        self._subscribers: set[Subscriber] = set()

    @contextmanager
    def subscribed(self) -> Iterator[Subscriber]:
        """Raises RateLimited where there are too many."""
        if len(self._subscribers) >= MOST_SUBSCRIBERS:
            raise RateLimited(
                f"{MOST_SUBSCRIBERS} gateways follow this pod's KV cache already; try again later"
            )
        subscriber = Subscriber(self.ledger.held())
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def _publish(self, kind: Kind, names: Sequence[int]) -> None:
        for subscriber in self._subscribers:
            subscriber.put(kind, names)
