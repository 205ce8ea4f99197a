"""Learns of each endpoint what it serves and how busy it is: one task an endpoint.

A pod's task asks for its models and follows its load stream. A refused or broken connection, the
stream's end, and three seconds of silence take the pod out of the pool; the task connects again
after the pool's back-off. Feeds events to the pool and decides nothing itself.

Load messages are what a gateway's work grows with by the number of pods, so pods are asked to tell
their load more seldom where there are many (`load_interval`). What the gateway has sent to a pod
itself it counts between the messages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

import grpc

from autoglm import v1
from autoglm.gateway.endpoints.channels import Channels
from autoglm.gateway.endpoints.endpoint import (
    Disconnected,
    Endpoint,
    Kind,
    Load,
    Loaded,
    ModelsDiscovered,
)
from autoglm.gateway.endpoints.pool import Pool
from autoglm.v1.inference_pb2_grpc import InferenceStub
from autoglm.v1.worker_pb2_grpc import WorkerStub

Watch = Callable[[Endpoint], Awaitable[None]]
_AFTER_BUG_SECONDS = 1.0
# What pods keep to by themselves.
_LEAST_INTERVAL, _MOST_INTERVAL = 0.05, 1.0
# An interval that has changed by less is not worth a new stream.
_DRIFT = 2.0
_log = logging.getLogger("autoglm.gateway")


def load_interval(pods: int, per_second: float) -> float:
    """The least time between two messages of a pod, in seconds, by which so many pods together send
    no more than `per_second`; up to the second that a pod is silent at the most.
    """
    return min(max(_LEAST_INTERVAL, pods / per_second), _MOST_INTERVAL)


def load_of(message: v1.WatchLoadResponse) -> Load:
    return Load(
        running=message.running,
        waiting=message.waiting,
        kv_cache_usage=message.kv_cache_usage,
        tokens_in_flight=message.tokens_in_flight,
        max_num_seqs=message.max_num_seqs,
        adapters=tuple(message.adapters),
        draining=message.draining,
        http_port=message.http_port,
        kv_tokens=message.num_kv_blocks * message.kv_block_size,
        kv_events=message.kv_events,
    )


@dataclass(frozen=True, slots=True)
class PodWatch:
    """Watches pods. `silence` is how long a load stream may send nothing, in seconds.

    `on_silence` is told of the URL and why, again and again while the pod does not answer.
    `follow_cache` runs beside the load stream of a pod that tells what is in its KV cache.
    `interval` is how often a pod may tell its load now, in seconds.
    """

    pool: Pool
    channels: Channels
    connect_timeout: float
    silence: float
    on_silence: Callable[[str, str], None] = lambda url, why: None
    clock: Callable[[], float] = time.monotonic
    follow_cache: Watch | None = None
    interval: Callable[[], float] = lambda: _LEAST_INTERVAL

    async def __call__(self, endpoint: Endpoint) -> None:
        """Runs until cancelled, or until the pool does not know the endpoint any more."""
        while True:
            lost = await self._follow(endpoint)
            now = self.clock()
            state = self.pool.apply(endpoint.url, lost, now)
            if state is None:
                return
            await asyncio.sleep(state.retry_at - now)

    async def _follow(self, endpoint: Endpoint) -> Disconnected:
        """Follows the pod while it can be followed; why it cannot any more."""
        channel = self.channels.get(endpoint).channel
        loads = _Loads(channel, self.interval)
        beside: asyncio.Task[None] | None = None
        try:
            await self._learn(endpoint, channel)
            adapters: tuple[str, ...] | None = None
            while True:
                async with asyncio.timeout(self.silence):
                    load = await loads.next()
                if adapters is not None and load.adapters != adapters:
                    await self._learn(endpoint, channel)
                adapters = load.adapters
                self.pool.apply(endpoint.url, Loaded(load), self.clock())
                if load.kv_events and self.follow_cache and beside is None:
                    beside = asyncio.ensure_future(self.follow_cache(endpoint))
        except StopAsyncIteration:
            return Disconnected("the pod ended its load stream")
        except TimeoutError:
            return self._tell_silence(endpoint, f"no load message for {self.silence:g} s")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return self._tell_silence(endpoint, f"no answer for {self.connect_timeout:g} s")
            return Disconnected(error.details() or error.code().name)
        finally:
            loads.cancel()
            if beside is not None:
                beside.cancel()

    def _tell_silence(self, endpoint: Endpoint, why: str) -> Disconnected:
        lost = Disconnected(why, silent=True)
        self.pool.apply(endpoint.url, lost, self.clock())
        self.on_silence(endpoint.url, why)
        return lost

    async def _learn(self, endpoint: Endpoint, channel: grpc.aio.Channel) -> None:
        answer = await InferenceStub(channel).ListModels(
            v1.ListModelsRequest(), timeout=self.connect_timeout
        )
        self.pool.apply(endpoint.url, ModelsDiscovered(tuple(answer.models)), self.clock())


class _Loads:
    """A pod's load messages, no more often than `interval` says now."""

    def __init__(self, channel: grpc.aio.Channel, interval: Callable[[], float]) -> None:
        self._stub = WorkerStub(channel)
        self._interval = interval
        self._open()

    async def next(self) -> Load:
        """Raises StopAsyncIteration where the pod goes away, and AioRpcError."""
        if not self._asked / _DRIFT <= self._interval() <= self._asked * _DRIFT:
            self.cancel()
            self._open()
        return load_of(await anext(self._messages))

    def cancel(self) -> None:
        self._call.cancel()

    def _open(self) -> None:
        self._asked = self._interval()
        request = v1.WatchLoadRequest(min_interval_seconds=self._asked)
        self._call = self._stub.WatchLoad(request)
        self._messages = aiter(self._call)


class Watches:
    """Keeps one watching task for each endpoint there is."""

    def __init__(self, by_kind: Mapping[Kind, Watch]) -> None:
        self._by_kind = by_kind
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """From now on watch these and no others."""
        wanted = set(endpoints)
        self.change(self._tasks.keys() - wanted, wanted)

    def change(self, gone: Iterable[Endpoint], come: Iterable[Endpoint]) -> None:
        """Stop watching these and start watching those."""
        for endpoint in gone:
            if task := self._tasks.pop(endpoint, None):
                task.cancel()
        for endpoint in come:
            if endpoint not in self._tasks:
                self._start(endpoint)

    def restart(self) -> None:
        """Watch anew, over channels made since; what is known of the endpoints stays."""
        endpoints = list(self._tasks)
        self.follow(())
        self.follow(endpoints)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self.follow(())
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, endpoint: Endpoint) -> None:
        task = asyncio.create_task(self._watch(endpoint), name=f"watch {endpoint.url}")
        self._tasks[endpoint] = task

    async def _watch(self, endpoint: Endpoint) -> None:
        while True:
            try:
                return await self._by_kind[endpoint.kind](endpoint)
            except Exception as error:
                # A bug; but an endpoint that nobody watches would never leave or enter the pool.
                _log.error("the watch of %s failed", endpoint.url, exc_info=error)
                await asyncio.sleep(_AFTER_BUG_SECONDS)
