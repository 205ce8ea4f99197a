"""The prefix index: which endpoints hold a prefix of a prompt in their KV cache. Pure data.

Keeps for each block name the endpoints that hold it, and for each endpoint its blocks by age. An
endpoint that holds a block holds all blocks before it: blocks are added from the last to the first,
so that the end of a prompt is evicted first, as engines do.

For most endpoints the index is estimated from the requests sent to them, up to their cache size.
Followed endpoints publish KV events (`follow`, `add_reported`, `remove`); a prompt sent to one of
them counts as cached for a while until an event confirms it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice

import msgspec
from xxhash import xxh3_64_intdigest

# A depth in blocks, and a bit for each endpoint that holds exactly as many.
Level = tuple[int, int]
MOST_BLOCKS = 1_000_000
# The assumed cache of an endpoint that does not report its size: half a million tokens.
UNKNOWN_BLOCKS = 8192
# How long a prompt sent to an endpoint may take to be reported as cached.
PROMISE_SECONDS = 30.0


@lru_cache(maxsize=4096)
def salt_of(tenant: str, model: str) -> int:
    """Return the salt of block names, which separates the prompts of tenants and models."""
    return xxh3_64_intdigest(f"{tenant}\0{model}".encode())


class Holders(msgspec.Struct, frozen=True):
    """The endpoints that hold a prefix of a prompt. Valid until the index changes.

    Thousands may hold a common prefix, so they are listed only on demand.
    """

    levels: Sequence[Level]
    """In order of depth."""
    bits: Mapping[str, int]
    urls: Mapping[int, str]

    @property
    def longest(self) -> int:
        """Return the most blocks that any endpoint holds."""
        return self.levels[-1][0] if self.levels else 0

    def all(self) -> dict[str, int]:
        """Return the blocks that each endpoint holds, by URL."""
        return {url: depth for depth, mask in self.levels for url in self._named(mask)}

    def deepest(self, most: int) -> list[str]:
        """Return up to `most` endpoints that hold the longest prefixes."""
        named = (url for _, mask in reversed(self.levels) for url in self._named(mask))
        return list(islice(named, most))

    def of(self, urls: Iterable[str]) -> dict[str, int]:
        """Return the blocks that these endpoints hold; omits those without any."""
        found: dict[str, int] = {}
        if not self.levels:
            return found
        levels, bit_of = self.levels, self.bits.get
        for url in urls:
            if bit := bit_of(url):
                for depth, mask in levels:
                    if mask & bit:
                        found[url] = depth
                        break
        return found

    def _named(self, mask: int) -> Iterator[str]:
        while mask:
            bit = mask & -mask
            yield self.urls[bit]
            mask ^= bit


class PrefixIndex:
    """The blocks that each endpoint holds.

    `most_blocks` bounds all endpoints together; each has an equal share.
    """

    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        self._most = most_blocks
        # Endpoints are bits of an integer: a block costs one entry, however many hold it.
        self._bits: dict[str, int] = {}
        self._urls: dict[int, str] = {}
        self._free: list[int] = []
        self._holders: dict[int, int] = {}
        self._held: dict[str, OrderedDict[int, None]] = {}
        # Blocks sent to followed endpoints and when, until an event confirms them.
        self._promised: dict[str, OrderedDict[int, float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def blocks_of(self, url: str) -> int:
        """Return the number of blocks that the endpoint holds."""
        return len(self._held.get(url, ()))

    def is_exact(self, url: str) -> bool:
        """Return whether the endpoint's blocks are known from its events."""
        return url in self._promised

    def match(self, blocks: Sequence[int], salt: int) -> dict[str, int]:
        """Return how many of the first blocks each endpoint holds; omits those without any."""
        return self.holders(blocks, salt).all()

    def holders(self, blocks: Sequence[int], salt: int) -> Holders:
        """Find the endpoints by one binary search for each distinct depth."""
        levels: list[Level] = []
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
            levels.append((depth, mask & ~rest))
            mask = rest
        return Holders(levels, self._bits, self._urls)

    def add(
        self,
        url: str,
        blocks: Sequence[int],
        salt: int,
        capacity: int = UNKNOWN_BLOCKS,
        now: float = 0.0,
    ) -> None:
        """Add the blocks of a prompt sent to the endpoint, whose cache holds `capacity` blocks."""
        names = [block ^ salt for block in blocks]
        promised = self._promised.get(url)
        if promised is None:
            self._note(url, names, capacity)
            return
        held = self._held[url]
        for name in names:
            if name in promised or name not in held:
                promised[name] = now
                promised.move_to_end(name)
        self._note(url, names)
        late = []
        for name, since in promised.items():
            if since > now - PROMISE_SECONDS:
                break
            late.append(name)
        self.remove(url, late)

    def follow(self, url: str) -> None:
        """Start following an endpoint's events, beginning with an empty cache."""
        self.forget(url)
        self._held_by(url)
        self._promised[url] = OrderedDict()

    def unfollow(self, url: str) -> None:
        """Stop following an endpoint's events; its blocks stay and age like those of others."""
        self._promised.pop(url, None)

    def add_reported(self, url: str, names: Sequence[int]) -> None:
        """Add blocks that a followed endpoint reports as stored."""
        promised = self._promised[url]
        for name in names:
            promised.pop(name, None)
        self._note(url, names)

    def remove(self, url: str, names: Sequence[int]) -> None:
        """Remove blocks that the endpoint no longer holds."""
        held, promised = self._held.get(url), self._promised.get(url)
        if held is None:
            return
        for name in names:
            if promised is not None:
                promised.pop(name, None)
            if name in held:
                del held[name]
                self._drop(name, self._bits[url])

    def forget(self, url: str) -> None:
        """Drop an endpoint that is removed or has lost its cache."""
        self._promised.pop(url, None)
        bit = self._bits.pop(url, 0)
        for name in self._held.pop(url, ()):
            self._drop(name, bit)
        if bit:
            del self._urls[bit]
            self._free.append(bit)

    def _note(self, url: str, names: Sequence[int], capacity: int = MOST_BLOCKS) -> None:
        held, bit, holders = self._held_by(url), self._bits[url], self._holders
        for name in reversed(names):
            if name in held:
                held.move_to_end(name)
            else:
                held[name] = None
                holders[name] = holders.get(name, 0) | bit
        most = max(1, min(capacity, self._most // len(self._held)))
        if len(held) > most:
            self.remove(url, list(islice(held, len(held) - most)))

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
