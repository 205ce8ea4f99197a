"""A real API server: operators that die, stand by or are refused, and servers that go away."""

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest
from tests.support.kube.controlplane import ControlPlane
from tests.support.operating import Cluster, Running, is_work, until

from autoglm.kube.kinds import CHILDREN, RESOURCE
from autoglm.kube.transport import Refused, Request, Unreachable

DEPLOYMENT, SERVICE = CHILDREN[:2]
BUDGET = CHILDREN[5]


def shape(children: dict[str, Any], name: str) -> set[str]:
    """Which children there are, without names and hashes."""
    return {child.replace(name, "").partition("-")[0] for child in children}


class Crash:
    """Ends an operator at its nth write: before it is sent, or before its response arrives."""

    def __init__(self, running: Running, nth: int, *, sent: bool) -> None:
        self._running = running
        self._left = nth
        self.happened = False
        if sent:
            running.faults.after = self
        else:
            running.faults.before = self

    def __call__(self, request: Request) -> Exception | None:
        if is_work(request) and not self.happened:
            self._left -= 1
            self.happened = self._left == 0
            if self.happened:
                self._running.task.cancel()
        # The dead send nothing.
        return Unreachable("crashed") if self.happened and request.is_write else None


@pytest.mark.parametrize("sent", [False, True], ids=["before-sending", "before-the-response"])
async def test_an_operator_killed_at_any_write_is_continued_by_the_next(
    cluster: Cluster, sent: bool
) -> None:
    await cluster.start()
    await cluster.create("whole")
    expected = shape(await cluster.settled("whole"), "whole")
    await cluster.stop_all()
    names: list[str] = []
    crashed = True
    while crashed:
        names.append(f"cut{len(names) + 1}")
        await cluster.create(names[-1])
        doomed = await cluster.start()
        crash = Crash(doomed, len(names), sent=sent)
        crashed = await crashes(cluster, crash, names[-1])
        await doomed.stop()
    assert len(names) > len(expected)
    successor = await cluster.start()
    for name in names:
        await until(lambda name=name: cluster.is_ready(name), f"{name} ready")
        assert shape(await cluster.children(name), name) == expected
    await cluster.settled(names[-1])
    writes = len(successor.writes)
    await asyncio.sleep(2)
    assert successor.writes[writes:] == []


async def crashes(cluster: Cluster, crash: Crash, name: str) -> bool:
    """False if the operator had less to write than the crash waited for."""

    async def has_crashed_or_is_ready() -> bool:
        return crash.happened or await cluster.is_ready(name)

    await until(has_crashed_or_is_ready, f"crash of {name}", 30)
    if not crash.happened:
        await cluster.settled(name)
    return crash.happened


async def test_a_second_operator_takes_over_within_fifteen_seconds(cluster: Cluster) -> None:
    first = await cluster.start(leader_election=True, identity="first")
    await until(lambda: first.operator.is_leading, "first leads")
    second = await cluster.start(leader_election=True, identity="second")
    await cluster.create("glm")
    await cluster.settled("glm")
    assert second.writes == []
    # As if its machine had died: no renewal, no release.
    first.faults.before = lambda request: Unreachable("dead")
    took = await until(lambda: second.operator.is_leading, "second leads", 15)
    assert not first.operator.is_leading
    await cluster.send("DELETE", SERVICE.path(cluster.namespace, "glm-pods"))

    async def is_back() -> bool:
        return await cluster.get(SERVICE, "glm-pods") is not None

    await until(is_back, "repaired by the second", 10)
    assert took > 3


async def test_after_a_clean_end_the_other_takes_over_at_once(cluster: Cluster) -> None:
    first = await cluster.start(leader_election=True, identity="first")
    await until(lambda: first.operator.is_leading, "first leads")
    second = await cluster.start(leader_election=True, identity="second")
    await until(lambda: second.operator.is_ready()[0], "second stands by")
    await first.stop()
    assert await until(lambda: second.operator.is_leading, "second leads", 15) < 4


async def test_an_api_server_that_went_away_and_came_back_finds_all_work_done(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    running = await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")
    # In this thread: the server ends with the thread that started it.
    control_plane.stop_api_server()
    try:
        await asyncio.sleep(3)
        assert running.operator.is_ready()[0]
        assert not running.task.done()
    finally:
        control_plane.start_api_server()
    await cluster.send("DELETE", SERVICE.path(cluster.namespace, "glm-pods"))
    await cluster.create("later")

    async def is_whole() -> bool:
        return await cluster.get(SERVICE, "glm-pods") is not None

    await until(is_whole, "repaired", 30)
    await cluster.settled("later")


@pytest.mark.parametrize(
    "error",
    [
        Refused(409, "Conflict", "the object has been modified"),
        Refused(429, "TooManyRequests", "slow down", retry_after=1.0),
        Refused(500, "InternalError", "etcd is busy"),
        Unreachable("connection reset"),
    ],
    ids=["409", "429", "500", "reset"],
)
async def test_refusals_that_pass_delay_and_change_nothing(
    cluster: Cluster, error: Exception
) -> None:
    running = await cluster.start()
    numbers = itertools.count()

    def every_other(request: Request) -> Exception | None:
        return error if is_work(request) and next(numbers) % 2 == 0 else None

    running.faults.before = every_other
    await cluster.create("glm")
    children = await cluster.settled("glm")
    assert len(children) == 6


@pytest.mark.parametrize(
    "error",
    [
        Refused(410, "Expired", "too old resource version"),
        Refused(429, "TooManyRequests", "slow down", retry_after=1.0),
        Refused(500, "InternalError", "etcd is busy"),
        Unreachable("connection reset"),
    ],
    ids=["410", "429", "500", "reset"],
)
async def test_lists_and_watches_that_are_refused_at_first_end_in_the_same(
    cluster: Cluster, error: Exception
) -> None:
    running = await cluster.start()
    reads: Counter[str] = Counter()

    def the_first_two(request: Request) -> Exception | None:
        kind = f"{request.path}{'watch' in dict(request.query)}"
        reads[kind] += not request.is_write
        return error if not request.is_write and reads[kind] <= 2 else None

    running.faults.before = the_first_two
    await cluster.create("glm")
    assert len(await cluster.settled("glm")) == 6
    assert not running.task.done()


async def test_one_bad_resource_slows_no_other(cluster: Cluster) -> None:
    running = await cluster.start(workers=2)
    bad = f"namespaces/{cluster.namespace}"

    def refuse_bad(request: Request) -> Exception | None:
        is_bad = bad in request.path and "/bad" in request.path and is_work(request)
        return Refused(500, "InternalError", "never") if is_bad else None

    running.faults.before = refuse_bad
    await cluster.create("bad")
    began = asyncio.get_running_loop().time()
    for i in range(5):
        await cluster.create(f"good-{i}")
    for i in range(5):
        await cluster.settled(f"good-{i}")
    assert asyncio.get_running_loop().time() - began < 30
    tries = sum("/bad" in r.path for r in running.writes)
    assert tries < 200
    running.faults.before = lambda request: None
    await cluster.settled("bad")


async def test_what_the_server_rejects_is_reported_and_the_rest_is_done(cluster: Cluster) -> None:
    running = await cluster.start()

    def no_budgets(request: Request) -> Exception | None:
        if is_work(request) and BUDGET.plural in request.path:
            return Refused(403, "Forbidden", "exceeded quota: budgets")
        return None

    running.faults.before = no_budgets
    await cluster.create("glm")

    async def is_reported() -> bool:
        status = (await cluster.resource("glm")).get("status") or {}
        return any("exceeded quota" in c["message"] for c in status.get("conditions", []))

    await until(is_reported, "refusal in a condition", 30)
    assert len(await cluster.children("glm")) == 5
    running.faults.before = lambda request: None

    async def is_whole() -> bool:
        return len(await cluster.children("glm")) == 6

    await until(is_whole, "the refused child, after its back-off", 30)


async def test_nothing_is_made_for_a_resource_whose_end_was_missed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an outage: the deletion was not delivered, the children's end is."""
    running = await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")
    world = running.operator.caches
    world.resources.remove = lambda json: None  # type: ignore[method-assign]  # missed
    monkeypatch.setattr("autoglm.operator.reconcile._FRESH_SECONDS", 0.0)
    writes = len(running.writes)
    await cluster.send("DELETE", RESOURCE.path(cluster.namespace, "glm"))

    async def is_gone() -> bool:
        return not await cluster.children("glm")

    await until(is_gone, "children gone", 60)
    await until(lambda: len(world.resources) == 0, "ghost forgotten", 20)
    assert running.writes[writes:] == []
