import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from autoglm import simulator, v1
from autoglm.common import errors
from autoglm.inference.pod import Pod
from autoglm.inference.servicers.worker import WorkerServicer, should_report
from autoglm.inference.settings import EchoSettings

LAST = v1.WatchLoadResponse(running=3, waiting=1, kv_cache_usage=0.5, adapters=["a"])


def changed(**fields: object) -> v1.WatchLoadResponse:
    load = v1.WatchLoadResponse()
    load.CopyFrom(LAST)
    load.MergeFrom(v1.WatchLoadResponse(**fields))  # type: ignore[arg-type]  # a table of fields
    return load


@pytest.mark.parametrize(
    "fields",
    [
        {"running": 4},
        {"waiting": 2},
        {"draining": True},
        {"kv_cache_usage": 0.6},
        {"adapters": ["b"]},
    ],
)
def test_changes_that_matter_are_news(fields: dict[str, object]) -> None:
    assert should_report(changed(**fields), LAST, 0)


@pytest.mark.parametrize("fields", [{}, {"kv_cache_usage": 0.52}, {"tokens_in_flight": 9}])
def test_small_changes_wait_for_the_second(fields: dict[str, object]) -> None:
    assert not should_report(changed(**fields), LAST, 0.9)
    assert should_report(changed(**fields), LAST, 1.0)


def test_the_first_load_is_news() -> None:
    assert should_report(LAST, None, 0)


@asynccontextmanager
async def a_pod(settings: EchoSettings) -> AsyncIterator[Pod]:
    pod, engine = Pod(), await simulator.start(settings)
    pod.ready(engine)
    try:
        yield pod
    finally:
        await engine.close()


@pytest.mark.looptime
async def test_a_stream_of_events_begins_with_the_cache_and_ends_with_the_pod() -> None:
    async with a_pod(EchoSettings()) as pod:
        feed = pod.engine().kv_feed()
        assert feed is not None
        feed.ledger.requested([(11, 1), (12, 2)])
        feed.ledger.stored([1])
        request = v1.SubscribeKvEventsRequest()
        messages = aiter(WorkerServicer(pod).SubscribeKvEvents(request, None))
        seen = [await anext(messages), await anext(messages)]
        assert [m.WhichOneof("event") for m in seen] == ["cleared", "stored"]
        assert list(seen[1].stored.block_hashes) == [11]
        feed.ledger.stored([2])
        feed.ledger.removed([1])
        seen += [await anext(messages), await anext(messages)]
        assert list(seen[2].stored.block_hashes) == [12]
        assert list(seen[3].removed.block_hashes) == [11]
        assert [m.sequence for m in seen] == [1, 2, 3, 4]
        pod.close()
        async with asyncio.timeout(5):
            assert [m async for m in messages] == []


async def report_times(pod: Pod, seconds: float, interval: float) -> list[float]:
    """When a pod whose load changes all the time reports it, in seconds."""
    now, times = asyncio.get_running_loop().time, []
    request = v1.WatchLoadRequest(min_interval_seconds=interval)
    begun, messages = now(), aiter(Busy(pod).WatchLoad(request, None))
    while now() - begun < seconds:
        await anext(messages)
        times.append(now() - begun)
    return times


class Busy(WorkerServicer):
    """Each look shows another load."""

    count = 0

    def _load(self) -> v1.WatchLoadResponse:
        self.count += 1
        return v1.WatchLoadResponse(running=self.count)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("requested", "kept"),
    [(0.0, 0.05), (0.01, 0.05), (0.4, 0.4), (60.0, 1.0), (float("nan"), 0.05), (-1.0, 0.05)],
)
async def test_a_busy_pod_reports_its_load_no_more_often_than_is_requested(
    requested: float, kept: float
) -> None:
    async with a_pod(EchoSettings()) as pod:
        times = await report_times(pod, 5.0, requested)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([kept] * len(gaps))


@pytest.mark.looptime
@pytest.mark.parametrize("requested", [0.0, 0.3, 0.7, 1.0])
async def test_a_quiet_pod_reports_its_load_about_once_a_second(requested: float) -> None:
    async with a_pod(EchoSettings()) as pod:
        request = v1.WatchLoadRequest(min_interval_seconds=requested)
        messages = aiter(WorkerServicer(pod).WatchLoad(request, None))
        await anext(messages)
        for _ in range(5):
            async with asyncio.timeout(1.5):
                await anext(messages)


@pytest.mark.looptime
async def test_a_drain_is_reported_at_once_however_seldom_load_is() -> None:
    async with a_pod(EchoSettings()) as pod:
        request = v1.WatchLoadRequest(min_interval_seconds=1.0)
        messages = aiter(WorkerServicer(pod).WatchLoad(request, None))
        assert not (await anext(messages)).draining
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0.1)
        pod.drain()
        async with asyncio.timeout(0.01):
            assert (await waiting).draining


@pytest.mark.looptime
async def test_changes_of_the_cache_are_gathered_for_as_long_as_is_requested() -> None:
    async with a_pod(EchoSettings()) as pod:
        feed, now = pod.engine().kv_feed(), asyncio.get_running_loop().time
        assert feed is not None
        feed.ledger.requested([(n, n) for n in range(10)])
        request = v1.SubscribeKvEventsRequest(min_interval_seconds=0.5)
        messages = aiter(WorkerServicer(pod).SubscribeKvEvents(request, None))
        assert (await anext(messages)).WhichOneof("event") == "cleared"
        begun, waiting = now(), asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        for block in range(10):
            feed.ledger.stored([block])
            await asyncio.sleep(0.01)
        stored = (await waiting).stored.block_hashes
        assert sorted(stored) == list(range(10)) and now() - begun <= 0.51


@pytest.mark.looptime
async def test_a_pod_without_events_says_so() -> None:
    async with a_pod(EchoSettings(kv_events=False)) as pod:
        servicer = WorkerServicer(pod)
        with pytest.raises(errors.Unimplemented):
            await anext(aiter(servicer.SubscribeKvEvents(v1.SubscribeKvEventsRequest(), None)))
        load = await anext(aiter(servicer.WatchLoad(v1.WatchLoadRequest(), None)))
        assert not load.kv_events
