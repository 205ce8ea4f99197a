"""Follows what is in the KV caches of pods that tell: one stream a pod, beside its load stream.

A stream begins with all that is cached, so whoever has lost something opens a new one: after a gap
in the sequence, after the end of a stream, and where the pod's blocks have been forgotten meanwhile
because it was taken for dead. Until then the gateway goes by what it remembers. Feeds the prefix
index and decides nothing about routing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import grpc

from autoglm import v1
from autoglm.common.backoff import Backoff
from autoglm.gateway.endpoints.channels import Channels
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.request.metrics import Metrics
from autoglm.v1.worker_pb2_grpc import WorkerStub

BACKOFF = Backoff(first=0.1, most=10.0, jitter=0.5)


class CachedBlocks(Protocol):
    """Which blocks each endpoint has in its KV cache."""

    def follow(self, url: str) -> None: ...
    def unfollow(self, url: str) -> None: ...
    def is_exact(self, url: str) -> bool: ...
    def add_reported(self, url: str, blocks: Sequence[int]) -> None: ...
    def remove(self, url: str, blocks: Sequence[int]) -> None: ...


class Lost(Exception):
    """Changes of the cache have been missed; `reason` is a label for metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reader:
    """Reads one stream into the index."""

    def __init__(self, prefixes: CachedBlocks, url: str) -> None:
        self._prefixes = prefixes
        self._url = url
        self.sequence = 0

    def read(self, message: v1.SubscribeKvEventsResponse) -> None:
        """Raises Lost."""
        self.sequence += 1
        if message.sequence != self.sequence:
            raise Lost("gap")
        kind = message.WhichOneof("event")
        if kind == "cleared":
            self._prefixes.follow(self._url)
        elif not self._prefixes.is_exact(self._url):
            raise Lost("forgotten")
        elif kind == "stored":
            self._prefixes.add_reported(self._url, message.stored.block_hashes)
        elif kind == "removed":
            self._prefixes.remove(self._url, message.removed.block_hashes)


class KvFollower:
    """Called with a pod, follows it until cancelled. `interval` is how often a pod may tell its
    changes, in seconds, as of when its stream begins.
    """

    def __init__(
        self,
        prefixes: CachedBlocks,
        channels: Channels,
        metrics: Metrics,
        interval: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._prefixes = prefixes
        self._channels = channels
        self._interval = interval
        self._streams = metrics.kv_streams
        self._breaks = metrics.kv_breaks
        self._rng = Random()

    async def __call__(self, endpoint: Endpoint) -> None:
        failures = 0
        while True:
            reader = Reader(self._prefixes, endpoint.url)
            reason = await self._follow(endpoint, reader)
            self._breaks.labels(reason).inc()
            # A stream that has said more than what it began with was a good one.
            failures = 1 if reader.sequence > 2 else failures + 1
            await asyncio.sleep(BACKOFF.delay(failures, self._rng))

    async def _follow(self, endpoint: Endpoint, reader: Reader) -> str:
        """Reads a stream to its end; the reason that it ended for."""
        channel = self._channels.get(endpoint).channel
        request = v1.SubscribeKvEventsRequest(min_interval_seconds=self._interval())
        messages = WorkerStub(channel).SubscribeKvEvents(request)
        self._streams.inc()
        try:
            async for message in messages:
                reader.read(message)
            return "ended"
        except Lost as lost:
            return lost.reason
        except grpc.aio.AioRpcError:
            return "broken"
        finally:
            messages.cancel()
            self._streams.dec()
            self._prefixes.unfollow(endpoint.url)
