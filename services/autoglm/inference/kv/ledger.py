"""Records which of the blocks that gateways name are in this pod's KV cache.

The engine says which of its own blocks enter and leave the cache. A request says in which of them
each block ends that a gateway has named in its prompt. So the pod can report changes of its cache
by the gateways' names, whether these are of token ids, text or a chat. Pure; bounded by the
engine's cache and by `most_names`. Fed by the engines, read by `feed`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from autoglm.validation.prefix_hash import BLOCK_BYTES, Prefix

Kind = Literal["stored", "removed", "cleared"]
Publish = Callable[[Kind, Sequence[int]], None]


def next_hash(parent: object, ids: Sequence[int]) -> int:
    """Return the pod's name of an engine's full block after `parent` (0 at the start).

    It is equal in all processes where `parent` is a number.
    """
    # Hashes of tuples of integers are not randomised, unlike those of strings.
    return hash((parent, *ids))


def ends(
    prefix: Prefix, salt: int, tokens: int, blocks: Sequence[int], size: int
) -> list[tuple[int, int]]:
    """Return each name of the prompt with the engine's block that its last token is in.

    `blocks` are the engine's full blocks of `size` tokens of a prompt of `tokens`. Token ids are
    named by 64, so it is known where those end; text is taken to have as many tokens a byte all
    over, which is wrong by a block or so. Names that end behind the last full block are left out.
    """
    found = []
    for number, name in enumerate(prefix.blocks, 1):
        end = -(-number * BLOCK_BYTES * tokens // prefix.size)
        block = max(0, -(-end // size) - 1)
        if block >= len(blocks):
            break
        found.append((name ^ salt, blocks[block]))
    return found


class KvLedger:
    """Calls `publish` with every change of the cached blocks, by name."""

    def __init__(self, most_names: int, publish: Publish = lambda kind, names: None) -> None:
        self._most = most_names
        self._publish = publish
        self._cached: set[int] = set()
        self._block_of: OrderedDict[int, int] = OrderedDict()
        self._names_of: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._block_of)

    def held(self) -> list[int]:
        """Return the names of blocks that are cached."""
        return [name for name, block in self._block_of.items() if block in self._cached]

    def requested(self, named: Sequence[tuple[int, int]]) -> None:
        """Record the names of a request's prompt, each with the block that it ends in."""
        found = []
        # The end of a prompt is forgotten before its beginning.
        for name, block in reversed(named):
            before = self._block_of.get(name)
            if before is not None and (before == block or before in self._cached):
                self._block_of.move_to_end(name)
                continue
            if before is not None:
                self._drop(name)
            self._block_of[name] = block
            self._names_of.setdefault(block, []).append(name)
            if block in self._cached:
                found.append(name)
        self._publish_names("stored", found[::-1])
        gone = []
        while len(self._block_of) > self._most:
            name = next(iter(self._block_of))
            if self._block_of[name] in self._cached:
                gone.append(name)
            self._drop(name)
        self._publish_names("removed", gone)

    def stored(self, blocks: Iterable[int]) -> None:
        """Record that the engine's blocks are cached."""
        new = [block for block in blocks if block not in self._cached]
        self._cached.update(new)
        self._publish_names("stored", self._names(new))

    def removed(self, blocks: Iterable[int]) -> None:
        """Record that the engine's blocks are no longer cached."""
        gone = [block for block in blocks if block in self._cached]
        self._cached.difference_update(gone)
        self._publish_names("removed", self._names(gone))

    def cleared(self) -> None:
        """Forget all blocks: none is cached, or none is known any more."""
        self._cached.clear()
        self._publish("cleared", ())

    def _names(self, blocks: Iterable[int]) -> list[int]:
        return [name for block in blocks for name in self._names_of.get(block, ())]

    def _publish_names(self, kind: Kind, names: Sequence[int]) -> None:
        if names:
            self._publish(kind, names)

    def _drop(self, name: int) -> None:
        block = self._block_of.pop(name)
        names = self._names_of[block]
        names.remove(name)
        if not names:
            del self._names_of[block]
