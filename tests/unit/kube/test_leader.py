"""Leaders over one Lease, in virtual time: takeover, release, and a fence against double writes."""

import asyncio
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import FakeApiServer, Faults

from autoglm.kube.election import Election, Terms
from autoglm.kube.kinds import LEASE, Key
from autoglm.kube.leader import Fence, Leader
from autoglm.kube.transport import NotLeading, Request, Unreachable
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.metrics import Metrics

pytestmark = pytest.mark.looptime
TERMS = Terms(10)
NAME = Key("system", "operator")
PATH = LEASE.path("system", "operator")


@dataclass
class Candidate:
    """One operator's leader, with a way of its own to the API server."""

    server: FakeApiServer
    name: str
    told: list[bool] = field(default_factory=list)

    def start(self) -> None:
        self.faults = Faults(self.server)
        kube = Kube(self.faults, Metrics(CollectorRegistry()), Limits(3, lambda: 3))
        clock = asyncio.get_running_loop().time
        self.leader = Leader(kube, NAME, Election(self.name, TERMS), self.told.append, clock)
        self.task = asyncio.create_task(self.leader.run())

    async def die(self) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))

    def cut_off(self) -> None:
        self.faults.before = lambda _: Unreachable("cut off")

    def reconnect(self) -> None:
        self.faults.before = lambda _: None


async def until(condition: object, limit: float) -> float:
    """Seconds until `condition()` holds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():  # type: ignore[operator]
        assert loop.time() - began < limit
        await asyncio.sleep(0.05)
    return loop.time() - began


def pair() -> tuple[FakeApiServer, Candidate, Candidate]:
    server = FakeApiServer()
    a, b = Candidate(server, "a"), Candidate(server, "b")
    for candidate in (a, b):
        candidate.start()
    return server, a, b


async def test_exactly_one_of_two_leads() -> None:
    server, a, b = pair()
    for _ in range(600):
        await asyncio.sleep(0.1)
        assert a.leader.is_leading + b.leader.is_leading <= 1
    assert (a.told, b.told) in (([True], []), ([], [True]))
    assert server.objects[PATH]["spec"]["leaseTransitions"] == 0


async def test_after_a_crash_the_other_leads_within_fifteen_seconds() -> None:
    server, a, b = pair()
    await asyncio.sleep(30)
    await a.die()
    assert await until(lambda: b.leader.is_leading, 15) > TERMS.duration - TERMS.period - 1
    assert server.objects[PATH]["spec"]["leaseTransitions"] == 1


async def test_after_a_clean_end_the_other_leads_at_once() -> None:
    _, a, b = pair()
    await asyncio.sleep(30)
    await a.die()
    await a.leader.release()
    assert a.told == [True, False]
    assert await until(lambda: b.leader.is_leading, 15) <= TERMS.poll_period + 0.2


async def test_a_lease_held_for_a_moment_only_is_given_back_as_well() -> None:
    server = FakeApiServer()
    only = Candidate(server, "only")
    only.start()
    await until(lambda: only.leader.is_leading, 1)
    await only.die()
    await only.leader.release()
    assert server.objects[PATH]["spec"].get("holderIdentity") is None


async def test_a_leader_that_is_cut_off_stops_before_the_other_starts() -> None:
    _, a, b = pair()
    await asyncio.sleep(30)
    loop = asyncio.get_running_loop()
    a.cut_off()
    await until(lambda: not a.leader.is_leading, 10)
    stopped = loop.time()
    await until(lambda: b.leader.is_leading, 15)
    # A write that began at the last moment has ended by then.
    assert loop.time() - stopped > TERMS.request_timeout
    a.reconnect()
    await asyncio.sleep(60)
    assert (a.leader.is_leading, b.leader.is_leading) == (False, True)
    assert a.told == [True, False]


async def test_a_short_outage_of_the_api_server_changes_no_leader() -> None:
    server, a, b = pair()
    await asyncio.sleep(30)
    for candidate in (a, b):
        candidate.cut_off()
    await asyncio.sleep(3)
    for candidate in (a, b):
        candidate.reconnect()
    await asyncio.sleep(30)
    assert (a.told, b.told) == ([True], [])
    assert server.objects[PATH]["spec"]["holderIdentity"] == "a"


async def test_a_lost_response_does_not_lose_the_lease() -> None:
    _, a, b = pair()
    await asyncio.sleep(30)
    lost: list[Request] = []

    def lose_once(request: Request) -> Exception | None:
        if request.is_write and len(lost) < 3:
            lost.append(request)
            return Unreachable("the answer got lost")
        return None

    a.faults.after = lose_once
    await asyncio.sleep(60)
    assert (len(lost), a.leader.is_leading, b.told) == (3, True, [])


async def test_a_lease_deleted_by_hand_is_made_again_with_one_leader() -> None:
    server, a, b = pair()
    await asyncio.sleep(30)
    server.remove(PATH)
    await asyncio.sleep(30)
    assert a.leader.is_leading + b.leader.is_leading == 1


async def write(fence: Fence, seconds: float) -> float:
    """Returns when it was done."""
    async with fence.guard():
        await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


async def test_a_write_outlasts_the_lease_time_while_it_is_renewed() -> None:
    fence = Fence()
    fence.extend(9)
    task = asyncio.create_task(write(fence, 40))
    for _ in range(30):
        await asyncio.sleep(2)
        fence.extend(9)
    assert await task == pytest.approx(40)


async def test_a_write_ends_in_time_where_the_lease_is_not_renewed() -> None:
    fence = Fence()
    fence.extend(9)
    with pytest.raises(NotLeading):
        await write(fence, 40)
    assert asyncio.get_running_loop().time() == pytest.approx(9)


async def test_losing_the_lease_ends_what_is_in_progress_at_once() -> None:
    fence = Fence()
    fence.extend(9)
    tasks = [asyncio.create_task(write(fence, 5)) for _ in range(3)]
    await asyncio.sleep(1)
    fence.extend(0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(e) for e in ended] == [NotLeading] * 3
    assert asyncio.get_running_loop().time() == pytest.approx(1)


async def test_time_outs_of_other_kinds_and_cancellation_pass_through() -> None:
    fence = Fence()
    fence.extend(9)
    with pytest.raises(TimeoutError):
        async with fence.guard(), asyncio.timeout(1):
            await asyncio.sleep(5)
    task = asyncio.create_task(write(fence, 5))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_an_election_nothing_ends_a_write() -> None:
    assert await write(Fence(), 1000) == pytest.approx(1000)
