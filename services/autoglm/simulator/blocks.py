"""The echo engine's KV-cache blocks: a budget with prefix reuse.

A full block is named by a hash over its tokens and all before them, so sequences with equal
prefixes share blocks. Blocks no sequence holds stay cached until room is needed, the longest
unused first. Keeps no tokens and knows no time; called by the scheduler. A ledger is notified
of the full blocks that are stored and removed.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from autoglm.inference.kv.ledger import KvLedger, next_hash

BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Private:
    """Names a block that is not full yet, so that no other sequence can share it."""

    number: int


Key = int | Private


def block_hashes(ids: Sequence[int], root: int = 0) -> list[int]:
    """Return the names of all full blocks of a sequence; another root makes others."""
    hashes: list[int] = []
    for start in range(0, len(ids) - BLOCK_SIZE + 1, BLOCK_SIZE):
        parent = hashes[-1] if hashes else root
        hashes.append(next_hash(parent, ids[start : start + BLOCK_SIZE]))
    return hashes


def blocks_for(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)


class BlockPool:
    def __init__(self, size: int, ledger: KvLedger | None = None) -> None:
        self.size = size
        self._ledger = ledger
        self._held: Counter[Key] = Counter()
        self._idle: OrderedDict[Key, None] = OrderedDict()
        self._numbers = itertools.count()

    @property
    def used(self) -> int:
        return len(self._held)

    @property
    def usage(self) -> float:
        return self.used / self.size

    def take(self, ids: Sequence[int], root: int = 0) -> tuple[list[Key], int] | None:
        """Acquire blocks for a sequence and its next token; return them and the cached tokens.

        None when there are too few. The last token is never counted as cached: its computation
        gives the next one.
        """
        keys: list[Key] = list(block_hashes(ids, root))
        cached = list(itertools.takewhile(self.is_cached, keys[: (len(ids) - 1) // BLOCK_SIZE]))
        keys += [self._private() for _ in range(blocks_for(len(ids) + 1) - len(keys))]
        if self.used + len({k for k in keys if k not in self._held}) > self.size:
            return None
        self._hold(keys)
        return keys, len(cached) * BLOCK_SIZE

    def grow(self, keys: list[Key], tokens: int) -> bool:
        """Add blocks to `keys` until they hold `tokens`; False when there are too few."""
        while len(keys) < blocks_for(tokens):
            if self.used >= self.size:
                return False
            keys.append(self._private())
            self._hold(keys[-1:])
        return True

    def fill(self, keys: list[Key], ids: Sequence[int], root: int = 0) -> None:
        """Give the last block of `ids`, which is full, a name that others can find."""
        index = len(ids) // BLOCK_SIZE - 1
        parent = keys[index - 1] if index else root
        name = next_hash(parent, ids[-BLOCK_SIZE:])
        self._drop(keys[index])
        keys[index] = name
        self._hold([name])

    def release(self, keys: Sequence[Key]) -> None:
        """Release all `keys`; full blocks stay cached, the beginning of the text longest."""
        for key in reversed(keys):
            self._drop(key)

    def is_cached(self, key: Key) -> bool:
        """Return whether a block of that name is in the cache, held or not."""
        return key in self._held or key in self._idle

    def _private(self) -> Private:
        return Private(next(self._numbers))

    def _hold(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._idle.pop(key, None)
            self._held[key] += 1
        gone = []
        while self.used + len(self._idle) > self.size:
            gone.append(self._idle.popitem(last=False)[0])
        if self._ledger is not None:
            self._ledger.stored(_full(keys))
            self._ledger.removed(_full(gone))

    def _drop(self, key: Key) -> None:
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
            if not isinstance(key, Private):
                self._idle[key] = None


def _full(keys: Sequence[Key]) -> list[int]:
    return [key for key in keys if not isinstance(key, Private)]
