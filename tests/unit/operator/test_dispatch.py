"""The dispatcher, in virtual time: bounded, fair, and never held up by a bad resource."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from autoglm.common.pacing import Backoff
from autoglm.kube.fence import NotLeading
from autoglm.kube.kinds import Key
from autoglm.kube.transport import Refused, Unreachable
from autoglm.operator.dispatch import Dispatcher
from autoglm.operator.metrics import Metrics
from autoglm.operator.queue import Queue
from autoglm.operator.reconcile import ChildrenRejected, ReconcileResult

pytestmark = pytest.mark.looptime
KEYS = [Key("ns", f"r{i}") for i in range(20)]
BAD = Key("ns", "bad")


@asynccontextmanager
async def dispatching(
    reconcile: Callable[[Key], Awaitable[ReconcileResult]], limit: int = 4
) -> AsyncIterator[Dispatcher]:
    queue = Queue[Key](Random(1), Backoff(first=1, most=60, jitter=0))
    dispatcher = Dispatcher(queue, reconcile, Metrics(CollectorRegistry()), limit)
    task = asyncio.create_task(dispatcher.run())
    await asyncio.sleep(0)
    yield dispatcher
    task.cancel()
    await asyncio.wait((task,))


async def test_no_more_than_the_limit_run_at_once_and_all_get_their_turn() -> None:
    running, most, seen = 0, 0, []

    async def reconcile(key: Key) -> ReconcileResult:
        nonlocal running, most
        seen.append(key)
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return ReconcileResult("unchanged")

    async with dispatching(reconcile) as dispatcher:
        for key in KEYS:
            dispatcher.add(key)
        await asyncio.sleep(5.5)
        assert (most, seen) == (4, KEYS)


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("x"),
        Refused(500, "r", "m"),
        ChildrenRejected("x"),
        RuntimeError("a bug"),
    ],
)
async def test_one_bad_resource_slows_no_other(error: Exception) -> None:
    tries: list[float] = []
    good: list[float] = []
    loop = asyncio.get_running_loop()

    async def reconcile(key: Key) -> ReconcileResult:
        if key == BAD:
            tries.append(loop.time())
            raise error
        good.append(loop.time())
        return ReconcileResult("unchanged", requeue_after=1)

    async with dispatching(reconcile, limit=1) as dispatcher:
        began = loop.time()
        dispatcher.add(BAD)
        dispatcher.add(KEYS[0])
        await asyncio.sleep(31.5)
        assert [round(t - began) for t in tries] == [0, 1, 3, 7, 15, 31]
        assert len(good) == 32


async def test_a_servers_wish_to_wait_is_respected() -> None:
    tries: list[float] = []

    async def reconcile(key: Key) -> ReconcileResult:
        tries.append(asyncio.get_running_loop().time())
        raise Refused(429, "TooManyRequests", "later", retry_after=45.0)

    async with dispatching(reconcile) as dispatcher:
        dispatcher.add(BAD)
        await asyncio.sleep(50)
        assert tries[1] - tries[0] == pytest.approx(45)


async def test_who_does_not_lead_does_not_try_again_by_itself() -> None:
    tries = []

    async def reconcile(key: Key) -> ReconcileResult:
        tries.append(key)
        raise NotLeading("standby")

    async with dispatching(reconcile) as dispatcher:
        dispatcher.add(KEYS[0])
        await asyncio.sleep(1000)
        assert len(tries) == 1


async def test_what_happens_during_a_run_makes_one_more() -> None:
    runs = []

    async def reconcile(key: Key) -> ReconcileResult:
        runs.append(key)
        await asyncio.sleep(1)
        return ReconcileResult("unchanged")

    async with dispatching(reconcile) as dispatcher:
        dispatcher.add(KEYS[0])
        await asyncio.sleep(0.5)
        for _ in range(5):
            dispatcher.add(KEYS[0])
        await asyncio.sleep(10)
        assert len(runs) == 2
