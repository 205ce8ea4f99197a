"""Watches the models and the load of each endpoint: one task an endpoint.

A pod's task lists its models and follows its load stream. A refused or broken connection, the end
of the stream, and three seconds of silence eject the pod; the task reconnects after the pool's
back-off. Feeds events to the pool, which decides.

A gateway's work grows with the load reports of all pods, so the more pods there are, the less often
each reports (`load_interval`). Between reports the gateway counts its own requests.
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
# The bounds that pods apply to the interval.
_LEAST_INTERVAL, _MOST_INTERVAL = 0.05, 1.0
# A stream is reopened if its interval has changed by at least this factor.
_DRIFT = 2.0
_log = logging.getLogger("autoglm.gateway")


def load_interval(pods: int, per_second: float) -> float:
    """Return the least seconds between two reports of a pod so that all pods together send at most
    `per_second`; at most 1, the longest interval of a pod.
    """
    return min(max(_LEAST_INTERVAL, pods / per_second), _MOST_INTERVAL)


def load_of(message: v1.WatchLoadResponse) -> Load:
    """Convert a pod's load report."""
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
    """A `Watch` of pods. `silence` is the longest time without a load report, in seconds.

    `on_silence` is called with the URL and the reason each time a pod does not respond in time.
    `follow_cache` runs beside the load stream of a pod that publishes KV events.
    `interval` returns the least seconds between two load reports of a pod.
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
        """Run until cancelled, or until the pool has removed the endpoint."""
        while True:
            lost = await self._follow(endpoint)
            now = self.clock()
            state = self.pool.apply(endpoint.url, lost, now)
            if state is None:
                return
            await asyncio.sleep(state.retry_at - now)

    async def _follow(self, endpoint: Endpoint) -> Disconnected:
        """Follow the pod until its connection fails; return why."""
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
            return self._report_silence(endpoint, f"no load report for {self.silence:g} s")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return self._report_silence(endpoint, f"no response in {self.connect_timeout:g} s")
            return Disconnected(error.details() or error.code().name)
        finally:
            loads.cancel()
            if beside is not None:
                beside.cancel()

    def _report_silence(self, endpoint: Endpoint, why: str) -> Disconnected:
        lost = Disconnected(why, silent=True)
        self.pool.apply(endpoint.url, lost, self.clock())
        self.on_silence(endpoint.url, why)
        return lost

    async def _learn(self, endpoint: Endpoint, channel: grpc.aio.Channel) -> None:
        response = await InferenceStub(channel).ListModels(
            v1.ListModelsRequest(), timeout=self.connect_timeout
        )
        self.pool.apply(endpoint.url, ModelsDiscovered(tuple(response.models)), self.clock())


class _Loads:
    """A pod's load reports, at the current interval."""

    def __init__(self, channel: grpc.aio.Channel, interval: Callable[[], float]) -> None:
        self._stub = WorkerStub(channel)
        self._interval = interval
        self._open()

    async def next(self) -> Load:
        """Return the next report. Raises StopAsyncIteration at the end, and AioRpcError."""
        if not self._requested / _DRIFT <= self._interval() <= self._requested * _DRIFT:
            self.cancel()
            self._open()
        return load_of(await anext(self._messages))

    def cancel(self) -> None:
        self._call.cancel()

    def _open(self) -> None:
        self._requested = self._interval()
        request = v1.WatchLoadRequest(min_interval_seconds=self._requested)
        self._call = self._stub.WatchLoad(request)
        self._messages = aiter(self._call)


class Watches:
    """Runs one watching task for each endpoint."""

    def __init__(self, by_kind: Mapping[Kind, Watch]) -> None:
        self._by_kind = by_kind
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """Watch these endpoints and no others from now on."""
        wanted = set(endpoints)
        self.change(self._tasks.keys() - wanted, wanted)

    def change(self, gone: Iterable[Endpoint], come: Iterable[Endpoint]) -> None:
        """Stop watching `gone` and start watching `come`."""
        for endpoint in gone:
            if task := self._tasks.pop(endpoint, None):
                task.cancel()
        for endpoint in come:
            if endpoint not in self._tasks:
                task = asyncio.create_task(self._watch(endpoint), name=f"watch {endpoint.url}")
                self._tasks[endpoint] = task

    def restart(self) -> None:
        """Restart all watches over new channels; the endpoints keep their state."""
        endpoints = list(self._tasks)
        self.follow(())
        self.follow(endpoints)

    async def close(self) -> None:
        """Stop all watches."""
        tasks = list(self._tasks.values())
        self.follow(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, endpoint: Endpoint) -> None:
        while True:
            try:
                return await self._by_kind[endpoint.kind](endpoint)
            except Exception as error:
                # A bug; but an endpoint without a watch would keep its state forever.
                _log.error("the watch of %s failed", endpoint.url, exc_info=error)
                await asyncio.sleep(_AFTER_BUG_SECONDS)
