"""vLLM's KV-cache events in our words. Pure; fed by `kv_events`.

vLLM names a block by a hash of its own and says which token ids are in it; here it becomes a hash
that can be made from a prompt as well. Blocks that depend on more than tokens, adapter and cache
salt (images) are not followed, nor is whatever comes behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from xxhash import xxh3_64_intdigest

from autoglm.inference.kv.ledger import KvLedger, next_hash

Hash = bytes | int
_FOLLOWED_MEDIA = (None, "GPU")
_SALT_KEY = "cache_salt"


class BlockStored(msgspec.Struct, tag=True):
    """The fields that are read of vLLM's message of that name, as of those below."""

    block_hashes: list[Hash]
    parent_block_hash: Hash | None
    token_ids: list[int]
    block_size: int
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[tuple[Any, ...] | None] | None = None
    group_idx: int | None = None


class BlockRemoved(msgspec.Struct, tag=True):
    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None


class AllBlocksCleared(msgspec.Struct, tag=True):
    pass


Event = BlockStored | BlockRemoved | AllBlocksCleared


class Batch(msgspec.Struct, array_like=True):
    """The events of one step of the engine."""

    ts: float
    events: list[Event]


def root(adapter: str | None, salt: str = "") -> int:
    """Return the parent of a prompt's first block."""
    if not (adapter or salt):
        return 0
    return xxh3_64_intdigest(f"{adapter or ''}\0{salt}".encode())


def block_names(ids: Sequence[int], size: int, adapter: str | None, salt: str = "") -> list[int]:
    """Return the pod's names of a prompt's full blocks."""
    names, parent = [], root(adapter, salt)
    for start in range(0, len(ids) - size + 1, size):
        parent = next_hash(parent, ids[start : start + size])
        names.append(parent)
    return names


def salt_and_others(keys: tuple[Any, ...] | None) -> tuple[str, tuple[Any, ...]]:
    """Return vLLM's extra keys of a first block: its cache salt, and the others."""
    salt, others = "", []
    for key in keys or ():
        if isinstance(key, list | tuple) and len(key) == 2 and key[0] == _SALT_KEY:
            salt = str(key[1])
        else:
            others.append(key)
    return salt, tuple(others)


@dataclass(slots=True)
class _Block:
    name: int
    copies: int = 1
    """vLLM may hold the same block more than once, and reports each."""


class Translator:
    """Keeps our name of each block that vLLM has said to hold; bounded by what it can hold."""

    def __init__(self, block_size: int, ledger: KvLedger) -> None:
        self._size = block_size
        self._ledger = ledger
        self._blocks: dict[Hash, _Block] = {}

    def apply(self, event: Event) -> None:
        if isinstance(event, AllBlocksCleared):
            self.lose()
        elif event.medium not in _FOLLOWED_MEDIA or event.group_idx:
            # What lies in slower memory, and further groups of layers: they follow the first.
            return
        elif isinstance(event, BlockRemoved):
            names = []
            for hashed in event.block_hashes:
                block = self._blocks.get(hashed)
                if block is not None:
                    block.copies -= 1
                    if not block.copies:
                        names.append(self._blocks.pop(hashed).name)
            self._ledger.removed(names)
        elif event.block_size == self._size:
            self._ledger.stored(self._stored(event))

    def lose(self) -> None:
        """Forget all blocks."""
        self._blocks.clear()
        self._ledger.cleared()

    def _stored(self, event: BlockStored) -> list[int]:
        keys = event.extra_keys or [None] * len(event.block_hashes)
        if event.parent_block_hash is None:
            salt, others = salt_and_others(keys[0]) if keys else ("", ())
            keys = [others, *keys[1:]]
            parent = root(event.lora_name, salt)
        else:
            before = self._blocks.get(event.parent_block_hash)
            if before is None:
                return []
            parent = before.name
        plain = (None, (), (event.lora_name,))
        names = []
        for number, hashed in enumerate(event.block_hashes):
            if keys[number] not in plain:
                break
            known = self._blocks.get(hashed)
            if known is not None:
                known.copies += 1
                parent = known.name
                continue
            start = number * self._size
            parent = next_hash(parent, event.token_ids[start : start + self._size])
            self._blocks[hashed] = _Block(parent)
            names.append(parent)
        return names
