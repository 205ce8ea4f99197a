"""Which endpoints hold the beginning of a prompt in their KV cache, as far as a gateway knows.

Keeps for each block name the endpoints that hold it, and for each endpoint its blocks by age. Who
holds a block holds all in front of it: blocks are noted from the last to the first, so that what is
forgotten first is the end of a prompt, as engines do it.

Of most endpoints a gateway knows what it has sent there, and forgets what does not fit. Those that
are followed tell what they hold (`follow`, `told`, `remove`); what was sent there meanwhile is a
promise that is good for a while. Pure data; written by events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from xxhash import xxh3_64_intdigest

# A depth in blocks, and a bit for each endpoint that holds just as many.
Level = tuple[int, int]
MOST_BLOCKS = 1_000_000
# Of an endpoint that does not say how much its cache holds: half a million tokens.
UNKNOWN_BLOCKS = 8192
# How long a prompt that was sent to an endpoint may take to get into its cache.
PROMISE_SECONDS = 30.0


@lru_cache(maxsize=4096)
def salt_of(tenant: str, model: str) -> int:
    """Mixed into block names at use: tenants and models never share what is known of a prompt."""
    return xxh3_64_intdigest(f"{tenant}\0{model}".encode())


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds a prompt's beginning. A thousand may hold a common one, so that all of them are
    named only where all are looked at. Good until the index changes."""

    levels: Sequence[Level]
    """The depths rise."""
    bits: Mapping[str, int]
    urls: Mapping[int, str]

    @property
    def longest(self) -> int:
        return self.levels[-1][0] if self.levels else 0

    def all(self) -> dict[str, int]:
        return {url: depth for depth, mask in self.levels for url in self._named(mask)}

    def deepest(self, most: int) -> list[str]:
        """So many that hold the most."""
        named = (url for _, mask in reversed(self.levels) for url in self._named(mask))
        return list(islice(named, most))

    def of(self, urls: Iterable[str]) -> dict[str, int]:
        """How much these hold; those that hold nothing are left out."""
        found: dict[str, int] = {}
        for url in urls:
            bit = self.bits.get(url, 0)
            for depth, mask in self.levels:
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
    """`most_blocks` bounds all endpoints together; each has an equal share of it."""

    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        self._most = most_blocks
        # Endpoints are bits of a whole number: a block costs one entry, however many hold it.
        self._bits: dict[str, int] = {}
        self._urls: dict[int, str] = {}
        self._free: list[int] = []
        self._holders: dict[int, int] = {}
        self._held: dict[str, OrderedDict[int, None]] = {}
        # Of followed endpoints: what was sent there and when, until they tell that they hold it.
        self._promised: dict[str, OrderedDict[int, float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def blocks_of(self, url: str) -> int:
        return len(self._held.get(url, ()))

    def is_exact(self, url: str) -> bool:
        """Whether the endpoint itself tells what it holds."""
        return url in self._promised

    def match(self, blocks: Sequence[int], salt: int) -> dict[str, int]:
        """How many of the first blocks each endpoint holds; those that hold none are left out."""
        return self.holders(blocks, salt).all()

    def holders(self, blocks: Sequence[int], salt: int) -> Holders:
        """Takes a binary search for each depth at which endpoints drop out."""
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
        """A prompt is on its way to the endpoint; `capacity` is how many blocks it can hold."""
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
        """From now on the endpoint tells what it holds; up to now that is nothing."""
        self.forget(url)
        self._held_by(url)
        self._promised[url] = OrderedDict()

    def unfollow(self, url: str) -> None:
        """It tells no more. What is known stays, and ages as that of others does."""
        self._promised.pop(url, None)

    def add_reported(self, url: str, names: Sequence[int]) -> None:
        """A followed endpoint says that it holds these."""
        promised = self._promised[url]
        for name in names:
            promised.pop(name, None)
        self._note(url, names)

    def remove(self, url: str, names: Sequence[int]) -> None:
        """The endpoint holds these no more."""
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
        """The endpoint is gone, or its cache is."""
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
