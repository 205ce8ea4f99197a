"""Limits how fast an address may guess credentials. Pure; every method takes `now`.

Each invalid credential that is new takes one token of its address's bucket; while the bucket is
empty, new credentials are not verified. IPv6 addresses count by their /64, since one client usually
has all of it.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from autoglm.common.lru import LruCache
from autoglm.common.pacing import TokenBucket

FAILURES = 20.0
FAILURES_PER_SECOND = 0.5
MOST_ADDRESSES = 10_000
_HOST_BITS = 64


class Throttle:
    """The token buckets of the addresses that failed most recently."""

    def __init__(self, limit: int = MOST_ADDRESSES) -> None:
        self._buckets: LruCache[str, TokenBucket] = LruCache(limit)

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, peer: str, now: float) -> float:
        """Return the seconds until the address may try a new credential; 0 for now."""
        bucket = self._buckets.get(_network(peer)) if len(self._buckets) else None
        return bucket.wait(1.0, now) if bucket else 0.0

    def charge(self, peer: str, now: float) -> None:
        """Count an invalid credential. Concurrent guesses never overdraw the bucket."""
        network = _network(peer)
        bucket = self._buckets.get(network) or TokenBucket(FAILURES_PER_SECOND, FAILURES, now)
        if bucket.wait(1.0, now) == 0:
            bucket.take(1.0, now)
        self._buckets.put(network, bucket)


@lru_cache(4096)
def _network(peer: str) -> str:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if not isinstance(address, IPv6Address):
        return peer
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS)}/{_HOST_BITS}"
