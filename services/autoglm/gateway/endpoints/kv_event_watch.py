"""Follows the KV events of pods into the prefix index: one stream a pod, beside its load stream.

A stream begins with all cached blocks, so the gateway opens a new one to resynchronize: after a gap
in the sequence, after the end of a stream, and if the index has dropped the pod's blocks because
the pod was ejected. Until then the index keeps its last state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import grpc

from autoglm import v1
from autoglm.common.pacing import Backoff
from autoglm.gateway.endpoints.channels import Channels
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.request.metrics import Metrics
from autoglm.v1.worker_pb2_grpc import WorkerStub

BACKOFF = Backoff(first=0.1, most=10.0, jitter=0.5)


class CachedBlocks(Protocol):
    """The prefix index, as far as this module updates it."""

    def follow(self, url: str) -> None: ...
    def unfollow(self, url: str) -> None: ...
    def is_exact(self, url: str) -> bool: ...
    def add_reported(self, url: str, blocks: Sequence[int]) -> None: ...
    def remove(self, url: str, blocks: Sequence[int]) -> None: ...


class Lost(Exception):
    """Events of the cache were missed; `reason` is a metric label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reader:
    """Applies the events of one stream to the index."""

    def __init__(self, prefixes: CachedBlocks, url: str) -> None:
        self._prefixes = prefixes
        self._url = url
        self.sequence = 0

    def read(self, message: v1.SubscribeKvEventsResponse) -> None:
        """Apply one event. Raises Lost if events were missed."""
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
    """A `Watch` that follows a pod's KV events until cancelled.

    `interval` returns the least seconds between two messages of a pod, read as a stream begins.
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
            # A stream with more than its initial messages resets the back-off.
            failures = 1 if reader.sequence > 2 else failures + 1
            await asyncio.sleep(BACKOFF.delay(failures, self._rng))

    async def _follow(self, endpoint: Endpoint, reader: Reader) -> str:
        """Read a stream to its end; return why it ended."""
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
