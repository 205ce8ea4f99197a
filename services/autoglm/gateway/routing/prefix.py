"""Which endpoints hold the beginning of a prompt in their KV cache, as far as a gateway knows.

Keeps for each block name the endpoints that hold it, and for each endpoint its blocks by age. Who
holds a block holds all in front of it: blocks are noted from the last to the first, so that what is
forgotten first is the end of a prompt, as engines do it. Pure data; written by events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache

from xxhash import xxh3_64_intdigest

MOST_BLOCKS = 1_000_000
# Of an endpoint that does not say how much its cache holds: half a million tokens.
UNKNOWN_BLOCKS = 8192


@lru_cache(maxsize=4096)
def salt_of(tenant: str, model: str) -> int:
    """Mixed into block names at use: tenants and models never share what is known of a prompt."""
    return xxh3_64_intdigest(f"{tenant}\0{model}".encode())


class PrefixIndex:
    """`most_blocks` bounds all endpoints together; each has an equal share of it."""

    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        self._most = most_blocks
        # Endpoints are bits of a whole number: a block costs one entry, however many hold it.
        self._bits: dict[str, int] = {}
        self._urls: dict[int, str] = {}
        self._free: list[int] = []
        self._holders: dict[int, int] = {}
        self._held: dict[str, OrderedDict[int, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def blocks_of(self, url: str) -> int:
        return len(self._held.get(url, ()))

    def match(self, blocks: Sequence[int], salt: int) -> dict[str, int]:
        """How many of the first blocks each endpoint holds; endpoints that hold none are left out.

        Takes a binary search for each depth at which endpoints drop out.
        """
        found: dict[str, int] = {}
        get, depth = self._holders.get, 0
        mask = get(blocks[0] ^ salt, 0) if blocks else 0
        while mask:
            low, high = depth, len(blocks) - 1
            while low < high:
                middle = (low + high + 1) // 2
                if get(blocks[middle] ^ salt, 0) & mask == mask:
                    low = middle
                else:
                    high = middle - 1
            depth = low + 1
            rest = get(blocks[depth] ^ salt, 0) & mask if depth < len(blocks) else 0
            for url in self._named(mask & ~rest):
                found[url] = depth
            mask = rest
        return found

    def add(
        self, url: str, blocks: Sequence[int], salt: int, capacity: int = UNKNOWN_BLOCKS
    ) -> None:
        """The endpoint holds these now; `capacity` is how many it can hold."""
        held, bit, holders = self._held_by(url), self._bits[url], self._holders
        for block in reversed(blocks):
            name = block ^ salt
            if name in held:
                held.move_to_end(name)
            else:
                held[name] = None
                holders[name] = holders.get(name, 0) | bit
        most = max(1, min(capacity, self._most // len(self._held)))
        while len(held) > most:
            self._drop(held.popitem(last=False)[0], bit)

    def remove(self, url: str, blocks: Sequence[int], salt: int) -> None:
        """The endpoint holds these no more."""
        held = self._held.get(url)
        for name in (block ^ salt for block in blocks):
            if held is not None and name in held:
                del held[name]
                self._drop(name, self._bits[url])

    def forget(self, url: str) -> None:
        """The endpoint is gone, or its cache is."""
        bit = self._bits.pop(url, 0)
        for name in self._held.pop(url, ()):
            self._drop(name, bit)
        if bit:
            del self._urls[bit]
            self._free.append(bit)

    def _held_by(self, url: str) -> OrderedDict[int, None]:
        held = self._held.get(url)
        if held is None:
            bit = self._free.pop() if self._free else 1 << len(self._bits)
            self._bits[url], self._urls[bit] = bit, url
            held = self._held[url] = OrderedDict()
        return held

    def _drop(self, name: int, bit: int) -> None:
        rest = self._holders[name] & ~bit
        if rest:
            self._holders[name] = rest
        else:
            del self._holders[name]

    def _named(self, mask: int) -> Iterator[str]:
        while mask:
            bit = mask & -mask
            yield self._urls[bit]
            mask ^= bit
