"""autoglm.v1.Worker on an engine: reports load and cached prompt blocks, aborts requests.

`should_report` decides when a load is worth a message; the stream reads the load twenty times a
second, or less often where a gateway with many pods requests that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.kv.feed import Change
from autoglm.inference.pod import Phase, Pod
from autoglm.v1 import worker_pb2_grpc

POLL_SECONDS = 0.05
_SILENCE_SECONDS = 1.0
_KV_STEP = 0.05
# Changes of the cache that come within so many seconds travel together.
_GATHER_SECONDS = 0.01


def should_report(
    load: v1.WatchLoadResponse,
    last: v1.WatchLoadResponse | None,
    silent_seconds: float,
    poll_seconds: float = POLL_SECONDS,
) -> bool:
    """Return whether to send `load` to a gateway that has received `last`."""
    if last is None or silent_seconds >= _SILENCE_SECONDS - poll_seconds / 2:
        return True
    if (load.running, load.waiting, load.draining) != (last.running, last.waiting, last.draining):
        return True
    if abs(load.kv_cache_usage - last.kv_cache_usage) >= _KV_STEP:
        return True
    return list(load.adapters) != list(last.adapters)


class WorkerServicer(worker_pb2_grpc.WorkerServicer):
    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    async def WatchLoad(
        self, request: v1.WatchLoadRequest, context: Any
    ) -> AsyncIterator[v1.WatchLoadResponse]:
        now = asyncio.get_running_loop().time
        poll = _interval(request.min_interval_seconds, POLL_SECONDS)
        last, sent = None, now()
        self._pod.engine()
        while self._pod.phase not in (Phase.CLOSING, Phase.DEAD):
            changed = self._pod.changed
            load = self._load()
            if should_report(load, last, now() - sent, poll):
                yield load
                last, sent = load, now()
            with suppress(TimeoutError):
                async with asyncio.timeout(poll):
                    await changed.wait()

    async def Abort(self, request: v1.AbortRequest, context: Any) -> v1.AbortResponse:
        aborted = await self._pod.engine().abort(request.request_ids)
        return v1.AbortResponse(aborted=aborted)

    async def LoadModel(self, request: v1.LoadModelRequest, context: Any) -> v1.LoadModelResponse:
        raise _one_model()

    async def UnloadModel(
        self, request: v1.UnloadModelRequest, context: Any
    ) -> v1.UnloadModelResponse:
        raise _one_model()

    async def LoadAdapter(
        self, request: v1.LoadAdapterRequest, context: Any
    ) -> v1.LoadAdapterResponse:
        raise _no_adapters()

    async def UnloadAdapter(
        self, request: v1.UnloadAdapterRequest, context: Any
    ) -> v1.UnloadAdapterResponse:
        raise _no_adapters()

    async def SubscribeKvEvents(
        self, request: v1.SubscribeKvEventsRequest, context: Any
    ) -> AsyncIterator[v1.SubscribeKvEventsResponse]:
        feed, sequence = self._pod.engine().kv_feed(), 0
        gather = _interval(request.min_interval_seconds, _GATHER_SECONDS)
        if feed is None:
            raise errors.Unimplemented("this pod publishes no KV-cache events")
        with feed.subscribed() as subscriber:
            while self._pod.phase not in (Phase.CLOSING, Phase.DEAD):
                for change in subscriber.take():
                    sequence += 1
                    yield message_of(change, sequence)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SILENCE_SECONDS / 2):
                        await subscriber.news.wait()
                await asyncio.sleep(gather)

    def _load(self) -> v1.WatchLoadResponse:
        load = self._pod.engine().load()
        return v1.WatchLoadResponse(
            running=load.running,
            waiting=load.waiting,
            kv_cache_usage=load.kv_cache_usage,
            tokens_in_flight=load.tokens_in_flight,
            adapters=load.adapters,
            draining=self._pod.is_draining,
            max_num_seqs=load.max_num_seqs,
            num_kv_blocks=load.num_kv_blocks,
            kv_block_size=load.kv_block_size,
            http_port=self._pod.http_port,
            kv_events=self._pod.engine().kv_feed() is not None,
        )


def message_of(change: Change, sequence: int) -> v1.SubscribeKvEventsResponse:
    kind, names = change
    message = v1.SubscribeKvEventsResponse(sequence=sequence)
    match kind:
        case "stored":
            message.stored.block_hashes.extend(names)
        case "removed":
            message.removed.block_hashes.extend(names)
        case "cleared":
            message.cleared.SetInParent()
    return message


def _interval(requested: float, least: float) -> float:
    """Return the requested interval in seconds, within bounds; the least for NaN."""
    return min(max(least, requested), _SILENCE_SECONDS)


def _one_model() -> errors.Unimplemented:
    return errors.Unimplemented("this pod serves one model; start another pod for another model")


def _no_adapters() -> errors.Unimplemented:
    return errors.Unimplemented("adapters are named when the pod starts and stay until it ends")
