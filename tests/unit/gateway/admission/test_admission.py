"""Tasks wait for their slot and give it back once, on virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from autoglm import v1
from autoglm.common import errors
from autoglm.common.status import TokenUsage
from autoglm.gateway.admission import Admission, AdmissionSettings, Bounds
from autoglm.gateway.admission.admission import queue_of
from autoglm.gateway.endpoints.deployments import Resource
from autoglm.gateway.endpoints.endpoint import Disconnected, Load, Loaded
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import ModelView
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import RequestRecord
from autoglm.kube.kinds import Key


class Stage:
    """One pod that works on `slots` requests at once, and callers that hold them for a time."""

    def __init__(self, make: Any, slots: int = 1, **bounds: Any) -> None:
        self.make, self.loop = make, asyncio.get_running_loop()
        self.pool, self.url = Pool(Random(0)), make.endpoint().url
        self.pool.change_endpoints((), [make.endpoint()], 0)
        for event in make.up(max_num_seqs=slots):
            self.pool.apply(self.url, event, self.loop.time())
        self.registry = CollectorRegistry()
        settings = AdmissionSettings(50, Bounds(**bounds), spare=0)
        self.admission = Admission(
            self.pool, settings, Metrics(self.registry), clock=self.loop.time
        )
        self.order: list[str] = []

    async def hold(self, name: str, seconds: float = 1.0, **request: Any) -> float:
        """How long it waited."""
        values = {"deadline": self.loop.time() + 500, "request_id": name} | request
        record = RequestRecord()
        slot = await self.admission.enter(self.make.request(**values), record)
        try:
            self.order.append(name)
            await asyncio.sleep(seconds)
            record.usage = TokenUsage(1, 1)
        finally:
            self.admission.leave(slot, record)
        return record.queued

    def start(self, name: str, **values: Any) -> asyncio.Task[float]:
        return asyncio.create_task(self.hold(name, **values))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"autoglm_gateway_{name}", labels)

    def is_empty(self) -> bool:
        inside = (self.admission.in_flight, self.admission.waiting)
        gauges = (
            self.value("admitted_requests", model="glm"),
            self.value("queue_requests", model="glm"),
        )
        return inside == (0, 0) and self.admission.idle.is_set() and gauges == (0, 0)


@pytest.mark.looptime
async def test_places_are_taken_in_turn_and_the_wait_is_noted(make: Any) -> None:
    stage = Stage(make)
    waits = await asyncio.gather(*(stage.start(name) for name in "abc"))
    assert stage.order == ["a", "b", "c"] and stage.is_empty()
    assert waits == pytest.approx([0, 1, 2], abs=0.01)
    count = stage.value("queue_duration_seconds_count", model="glm", outcome="admitted")
    assert count == 3


@pytest.mark.looptime
async def test_caller_that_leaves_frees_its_place_in_the_queue(make: Any) -> None:
    stage = Stage(make)
    tasks = [stage.start(name) for name in "abc"]
    await asyncio.sleep(0.5)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert stage.order == ["a", "c"] and stage.is_empty()
    assert stage.loop.time() == pytest.approx(2.0, abs=0.01)


@pytest.mark.looptime
async def test_caller_cancelled_in_the_moment_of_its_turn_gives_the_place_on(make: Any) -> None:
    stage = Stage(make)
    first, second, third = (stage.start(name) for name in "abc")
    first.add_done_callback(lambda _: second.cancel())
    await asyncio.wait([first, second, third])
    assert "c" in stage.order and stage.is_empty()


@pytest.mark.looptime
async def test_new_pod_takes_who_waits(make: Any) -> None:
    stage = Stage(make)
    tasks = [stage.start(name, seconds=10) for name in "ab"]
    await asyncio.sleep(1)
    stage.pool.change_endpoints((), [make.endpoint(2)], stage.loop.time())
    for event in make.up(max_num_seqs=1):
        stage.pool.apply(make.endpoint(2).url, event, stage.loop.time())
    assert (await asyncio.gather(*tasks))[1] == pytest.approx(1.0, abs=0.3)


@pytest.mark.looptime
@pytest.mark.parametrize(("back_after", "error"), [(5, None), (None, errors.NoReadyEndpoint)])
async def test_who_waits_when_the_last_pod_dies_gets_the_next_or_503(
    make: Any, back_after: float | None, error: type[Exception] | None
) -> None:
    stage = Stage(make, wait_seconds=20.0)
    tasks = [stage.start(name, seconds=3) for name in "ab"]
    await asyncio.sleep(1)
    stage.pool.apply(stage.url, Disconnected("killed"), stage.loop.time())
    if back_after is not None:
        await asyncio.sleep(back_after)
        stage.pool.apply(stage.url, Loaded(Load(max_num_seqs=1)), stage.loop.time())
    _, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert type(second) is (error or float) and stage.is_empty()


@pytest.mark.looptime
async def test_call_for_a_model_without_a_pod_is_left_to_routing(make: Any) -> None:
    stage = Stage(make)
    stage.pool.apply(stage.url, Disconnected("killed"), stage.loop.time())
    assert await stage.hold("a") == 0


@pytest.mark.looptime
async def test_request_waits_no_longer_than_its_deadline(make: Any) -> None:
    stage = Stage(make)
    first, second = stage.start("a", seconds=9), stage.start("b", deadline=stage.loop.time() + 2)
    with pytest.raises(errors.DeadlineExceeded):
        await second
    assert stage.loop.time() == pytest.approx(2, abs=0.1)
    await first
    reason = stage.value("queue_rejections_total", model="glm", reason="DEADLINE_EXCEEDED")
    assert reason == 1 and stage.is_empty()


@pytest.mark.looptime
async def test_full_queue_refuses_at_once(make: Any) -> None:
    stage = Stage(make, requests=2)
    tasks = [stage.start(name) for name in "abcd"]
    with pytest.raises(errors.QueueFull):
        await tasks[3]
    assert stage.loop.time() < 0.1
    await asyncio.gather(*tasks[:3])
    assert stage.is_empty()


@pytest.mark.looptime
async def test_bound_on_all_requests_holds_over_all_models(make: Any) -> None:
    stage = Stage(make)
    tasks = [stage.start(f"{n}", deadline=stage.loop.time() + 3) for n in range(51)]
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends].count(errors.QueueFull) == 1 and stage.is_empty()


@pytest.mark.looptime
async def test_who_waits_at_the_end_of_the_process_is_sent_elsewhere(make: Any) -> None:
    stage = Stage(make)
    first, second = stage.start("a"), stage.start("b")
    await asyncio.sleep(0.5)
    stage.admission.reject_waiting()
    with pytest.raises(errors.ShuttingDown):
        await second
    await first
    assert stage.is_empty()


def test_names_that_share_pods_share_a_queue_and_no_others_do() -> None:
    young = Resource(Key("n", "young"), names=("glm", "mine", "mine-too"))
    old = Resource(Key("n", "old"), names=("glm",))
    models = {
        "glm": ModelView(v1.Model(name="glm"), resource=old),
        "mine": ModelView(v1.Model(name="glm", aliases=["mine"]), resource=young),
        "mine-too": ModelView(v1.Model(name="glm"), resource=young),
        "base": ModelView(v1.Model(name="base", aliases=["alias"])),
        "alias": ModelView(v1.Model(name="base", aliases=["alias"])),
        "adapter": ModelView(v1.Model(name="adapter", parent="base")),
        "orphan": ModelView(v1.Model(name="orphan", parent="unknown")),
    }
    assert {name: queue_of(name, models) for name in models} == {
        "glm": "glm",
        "mine": "mine",
        "mine-too": "mine",
        "base": "base",
        "alias": "base",
        "adapter": "base",
        "orphan": "orphan",
    }


EVENTS = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.sampled_from(["send", "cancel", "lose", "return"]),
        st.floats(0, 5),
        st.integers(0, 9),
    ),
    max_size=40,
)


@pytest.mark.looptime
@given(EVENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_place_is_lost_whatever_comes_goes_and_dies(make: Any, events: list[Any]) -> None:
    stage = Stage(make, slots=2, requests=5, wait_seconds=8.0)
    tasks: list[asyncio.Task[float]] = []
    for pause, what, seconds, number in events:
        await asyncio.sleep(pause)
        if what == "send":
            deadline = stage.loop.time() + 2 * seconds + 0.1
            tasks.append(stage.start("x", seconds=seconds, deadline=deadline))
        elif what == "cancel" and tasks:
            tasks[number % len(tasks)].cancel()
        elif what == "lose":
            stage.pool.apply(stage.url, Disconnected("killed"), stage.loop.time())
        elif what == "return":
            stage.pool.apply(stage.url, Loaded(Load(max_num_seqs=2)), stage.loop.time())
        assert stage.admission.waiting <= 5
    for task in tasks:
        with suppress(errors.AutoGLMError, asyncio.CancelledError):
            await task
    assert (stage.admission.in_flight, stage.admission.waiting) == (0, 0)
    assert all(line.is_idle for line in stage.admission._lines.values())
