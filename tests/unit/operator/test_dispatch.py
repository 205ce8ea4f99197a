"""The queue: one run a key, each with its own back-off; the dispatcher, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from autoglm.common.pacing import Backoff
from autoglm.kube.kinds import Key
from autoglm.kube.transport import NotLeading, Refused, Unreachable
from autoglm.operator.dispatch import Dispatcher, Queue
from autoglm.operator.metrics import Metrics
from autoglm.operator.reconcile import ChildrenRejected, ReconcileResult

pytestmark = pytest.mark.looptime
EXACT = Backoff(first=1.0, most=8.0, jitter=0.0)
KEYS = [Key("ns", f"r{i}") for i in range(20)]
BAD = Key("ns", "bad")


def queue() -> Queue[str]:
    return Queue(Random(1), EXACT)


def test_events_of_a_key_make_one_run() -> None:
    q = queue()
    for _ in range(3):
        q.add("a", 0)
    assert [q.take(0), q.take(0)] == ["a", None]


def test_a_key_is_never_run_twice_at_once_but_once_more_afterwards() -> None:
    q = queue()
    q.add("a", 0)
    assert q.take(0) == "a"
    q.add("a", 1)
    assert q.take(1) is None
    q.done("a", 2)
    assert [q.take(2), q.take(2)] == ["a", None]


def test_the_key_that_waits_longest_goes_first() -> None:
    q = queue()
    for now, key in enumerate("cab"):
        q.add(key, now)
    assert [q.take(9) for _ in range(3)] == ["c", "a", "b"]


def test_an_earlier_time_wins_over_a_later_one() -> None:
    q = queue()
    q.add("a", 0, after=60)
    q.add("a", 0, after=5)
    q.add("a", 0, after=30)
    assert (q.take(4.9), q.next_due(), q.take(5)) == (None, 5, "a")


def test_a_key_is_requeued_after_its_delay() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.done("a", 10, requeue_after=3)
    assert (q.take(12.9), q.take(13)) == (None, "a")


def test_failures_wait_longer_each_time_up_to_a_bound_and_success_forgets_them() -> None:
    q, now, delays = queue(), 0.0, []
    q.add("a", now)
    for _ in range(5):
        assert q.take(now) == "a"
        delays.append(q.failed("a", now))
        now += delays[-1]
    assert delays == [1, 2, 4, 8, 8]
    assert q.failing == 1
    q.take(now)
    q.done("a", now)
    q.add("a", now)
    q.take(now)
    assert (q.failing, q.failed("a", now)) == (0, 1)


def test_events_do_not_shorten_a_back_off_but_the_users_change_does() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.failed("a", 0, at_least=50)
    q.add("a", 1)
    assert q.take(49) is None
    q.add("a", 2, urgent=True)
    assert q.take(2) == "a"


def test_a_users_change_during_a_run_that_fails_is_tried_at_once() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.add("a", 1, urgent=True)
    q.failed("a", 2, at_least=50)
    assert q.take(2) == "a"


def test_a_failing_key_delays_no_other() -> None:
    q = queue()
    for key in "ab":
        q.add(key, 0)
    assert q.take(0) == "a"
    q.failed("a", 0, at_least=1000)
    assert q.take(0) == "b"
    q.done("b", 0)
    q.add("b", 1)
    assert q.take(1) == "b"


def test_jitter_only_shortens() -> None:
    backoff, rng = Backoff(first=1, most=8, jitter=0.5), Random(7)
    delays = [backoff.delay(3, rng) for _ in range(200)]
    assert 2 <= min(delays) < 2.5 < 3.5 < max(delays) <= 4


def test_next_due_is_none_when_only_running_keys_are_left() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.add("a", 1)
    assert (q.next_due(), len(q), q.running) == (None, 1, 1)


def test_a_thousand_failures_do_not_overflow() -> None:
    assert EXACT.delay(100_000, Random(1)) == 8


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


async def test_a_standby_does_not_retry() -> None:
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
