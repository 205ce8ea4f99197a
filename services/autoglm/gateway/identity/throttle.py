"""Limits how fast an address may guess credentials. Pure; every method takes `now`.

Each invalid credential that is new takes one token of its address's bucket; while the bucket is
empty, new credentials are not verified. IPv6 addresses count by their /64. Addresses of trusted
proxies have no bucket: one would be that of all clients behind them.
"""

from __future__ import annotations

from autoglm.common.addresses import NO_PROXIES, TrustedProxies, network_of
from autoglm.common.lru import LruCache
from autoglm.common.pacing import TokenBucket

FAILURES = 20.0
FAILURES_PER_SECOND = 0.5
MOST_ADDRESSES = 10_000


class Throttle:
    """The token buckets of the addresses that failed most recently."""

    def __init__(self, limit: int = MOST_ADDRESSES, proxies: TrustedProxies = NO_PROXIES) -> None:
        self._buckets: LruCache[str, TokenBucket] = LruCache(limit)
        self._proxies = proxies

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, peer: str, now: float) -> float:
        """Return the seconds until the address may try a new credential; 0 for now."""
        bucket = self._buckets.get(network_of(peer)) if len(self._buckets) else None
        return bucket.wait(1.0, now) if bucket else 0.0

    def charge(self, peer: str, now: float) -> None:
        """Count an invalid credential. Concurrent guesses never overdraw the bucket."""
        if self._proxies.trusts(peer):
            return
        network = network_of(peer)
        bucket = self._buckets.get(network) or TokenBucket(FAILURES_PER_SECOND, FAILURES, now)
        if bucket.wait(1.0, now) == 0:
            bucket.take(1.0, now)
        self._buckets.put(network, bucket)
