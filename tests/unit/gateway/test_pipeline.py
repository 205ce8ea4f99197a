import asyncio
import logging
from random import Random
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from tests.support.responses import chunks_of, forward, opened

from autoglm.common import errors
from autoglm.common.errors import Outcome, outcome_of_status
from autoglm.gateway.admission import Admission, AdmissionSettings
from autoglm.gateway.endpoints.endpoint import ModelsDiscovered
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.pipeline import Pipeline, check, with_model
from autoglm.gateway.request.memory_budget import REQUEST_BYTES, Memory, MemoryReservation
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import (
    Deliver,
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
    body_of,
)
from autoglm.gateway.request_telemetry import Observer


class Stage:
    """The pipeline before a proxy that responds or fails."""

    def __init__(self, make: Any, failure: BaseException | None = None, status: int = 200) -> None:
        self.registry = CollectorRegistry()
        self.pool = Pool(Random(0))
        self.pool.change_endpoints((), [make.endpoint()], 0)
        for event in make.up():
            self.pool.apply(make.endpoint().url, event, 0)
        metrics = Metrics(self.registry)
        self.admission = Admission(self.pool, AdmissionSettings(1), metrics, clock=lambda: 0.0)
        known = self.pool.snapshot.models.__contains__
        observer = Observer(metrics, known, lambda: 1.5)
        self.memory = Memory(10 * REQUEST_BYTES)
        self.reached = 0

        async def proxy(request: GatewayRequest, record: RequestRecord, deliver: Deliver) -> None:
            self.reached += 1
            if failure is not None:
                raise failure
            record.first_chunk = 0.5
            await deliver(Response(forward([b"x", b"x"]), status=status))

        self.handler: Handler = Pipeline(self.pool, self.admission, observer, self.memory, proxy)

    async def send(self, request: GatewayRequest) -> None:
        async with opened(self.handler, request) as reply:
            assert self.admission.in_flight == 1
            assert await body_of(reply) == b"xx"

    def outcome(self) -> tuple[str, str, str]:
        """Model, outcome and code of the one request there was."""
        (family,) = [f for f in self.registry.collect() if f.name == "autoglm_gateway_requests"]
        (sample,) = [s for s in family.samples if s.name.endswith("_total")]
        return sample.labels["model"], sample.labels["outcome"], sample.labels["code"]


@pytest.mark.parametrize(
    ("failure", "raised", "outcome", "code"),
    [
        (errors.QueueFull("full"), errors.QueueFull, "rejected_full", "RESOURCE_EXHAUSTED"),
        (
            errors.NoReadyEndpoint("no"),
            errors.NoReadyEndpoint,
            "rejected_unavailable",
            "UNAVAILABLE",
        ),
        (errors.StreamBroken("gone"), errors.StreamBroken, "broken", "UNAVAILABLE"),
        (errors.DeadlineExceeded("late"), errors.DeadlineExceeded, "expired", "DEADLINE_EXCEEDED"),
        (TimeoutError(), errors.DeadlineExceeded, "expired", "DEADLINE_EXCEEDED"),
        (asyncio.CancelledError(), asyncio.CancelledError, "cancelled", "CANCELLED"),
        (RuntimeError("a bug"), errors.Internal, "failed", "INTERNAL"),
    ],
)
async def test_every_end_has_one_outcome_and_only_our_errors_leave(
    make: Any, failure: BaseException, raised: type[BaseException], outcome: str, code: str
) -> None:
    stage = Stage(make, failure)
    with pytest.raises(raised):
        await stage.send(make.request())
    assert stage.outcome() == ("glm", outcome, code)
    assert stage.admission.in_flight == 0


async def test_served_request_is_counted_once_with_its_model(make: Any) -> None:
    stage = Stage(make)
    await stage.send(make.request())
    assert stage.outcome() == ("glm", "served", "OK")


async def test_cancel_after_the_deadline_is_an_expiry(make: Any) -> None:
    stage = Stage(make, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await stage.send(make.request(deadline=1.5))
    assert stage.outcome()[1] == "expired"


async def test_status_passed_on_from_a_pod_is_the_code(make: Any) -> None:
    stage = Stage(make, status=404)
    await stage.send(make.request(wire="http", route="POST /v1/completions"))
    assert stage.outcome() == ("glm", "rejected_invalid", "404")


async def test_wrong_request_takes_no_place_and_its_model_is_no_label(make: Any) -> None:
    stage = Stage(make)
    with pytest.raises(errors.ModelNotFound):
        await stage.send(make.request("made-up-by-a-client"))
    assert stage.outcome() == ("other", "rejected_invalid", "NOT_FOUND")
    assert stage.reached == 0


async def test_request_that_could_not_be_read_is_observed_too(make: Any) -> None:
    stage = Stage(make)
    with pytest.raises(errors.InvalidRequest):
        await stage.send(make.request(info=None, problem=errors.InvalidRequest("bad bytes")))
    assert stage.outcome() == ("other", "rejected_invalid", "INVALID_ARGUMENT")


async def test_place_is_held_until_the_stream_ends(make: Any) -> None:
    stage = Stage(make)
    async with opened(stage.handler, make.request()):
        with pytest.raises(errors.QueueFull):
            await stage.send(make.request())
    await stage.send(make.request())


async def test_one_line_is_logged_for_each_request(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(make)
    with caplog.at_level(logging.INFO, logger="autoglm.gateway.request"):
        await stage.send(make.request())
    (record,) = caplog.records
    fields = getattr(record, "fields")  # noqa: B009 - LogRecord does not declare it
    assert fields["outcome"] == "served" and fields["first_chunk_seconds"] == 0.5
    assert fields["request_id"] == "r1" and fields["seconds"] == 1.5


@pytest.mark.parametrize("cls", errors.ERRORS)
def test_every_error_has_an_outcome_that_is_not_served(cls: type[errors.AutoGLMError]) -> None:
    assert outcome_of_status(cls.http_status) is not Outcome.SERVED


def received(make: Any, size: int, failure: BaseException | None = None) -> GatewayRequest:
    """A request whose body of so many bytes is still to be read."""

    async def receive(request: GatewayRequest, hold: MemoryReservation) -> GatewayRequest:
        hold.take(size)
        await asyncio.sleep(0)
        if failure is not None:
            raise failure
        return replace(request, payload=bytes(size), info=make.request().info)

    return cast(GatewayRequest, make.request(info=None, receive=receive))


_ENDS = st.sampled_from(
    (
        *(None, errors.InvalidRequest("bad"), errors.StreamBroken("gone"), TimeoutError()),
        *(RuntimeError("a bug"), asyncio.CancelledError()),
    )
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 6 * REQUEST_BYTES), _ENDS, _ENDS, st.integers(0, 8))
def test_memory_is_given_back_whatever_ends_the_request(
    make: Any, size: int, reading: BaseException | None, inside: BaseException | None, steps: int
) -> None:
    async def run() -> Stage:
        stage = Stage(make, inside)
        sending = asyncio.create_task(stage.send(received(make, size, reading)))
        for _ in range(steps):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return stage

    stage = asyncio.run(run())
    assert (stage.memory.held, stage.memory.holds, stage.admission.in_flight) == (0, 0, 0)


async def test_body_counts_until_the_stream_has_ended(make: Any) -> None:
    stage = Stage(make)
    async with opened(stage.handler, received(make, 1000)) as reply:
        assert stage.memory.held == REQUEST_BYTES + 1000
        async for _ in chunks_of(reply):
            assert stage.memory.held == REQUEST_BYTES + 1000
    assert stage.memory.held == 0


async def test_request_without_room_is_refused_before_its_body_is_read(make: Any) -> None:
    stage, read = Stage(make), 0

    async def receive(request: GatewayRequest, hold: MemoryReservation) -> GatewayRequest:
        nonlocal read
        read += 1
        return request

    with stage.memory.open("other") as hold, stage.memory.open("another") as another:
        hold.take(5 * REQUEST_BYTES)
        another.take(5 * REQUEST_BYTES)
        with pytest.raises(errors.QueueFull) as refused:
            await stage.send(make.request(info=None, receive=receive))
    assert (read, stage.reached) == (0, 0)
    assert refused.value.retry_after == 1.0
    assert stage.outcome() == ("other", "rejected_full", "RESOURCE_EXHAUSTED")


def pool_of(make: Any, *names: str, parent: str = "") -> Pool:
    """A pool whose one pod serves the names; those after the first are adapters of `parent`."""
    pool = Pool(Random(0))
    pool.change_endpoints((), [make.endpoint()], 0)
    models = (make.model(names[0]), *(make.model(name, parent=parent) for name in names[1:]))
    for event in (ModelsDiscovered(models), make.up()[1]):
        pool.apply(make.endpoint().url, event, 0)
    return pool


def test_request_without_a_model_is_for_the_one_that_there_is(make: Any) -> None:
    request = make.request("", wire="http")
    assert with_model(request, pool_of(make, "glm")).model == "glm"
    assert with_model(request, pool_of(make, "glm", "adapter", parent="glm")).model == "glm"
    assert with_model(request, pool_of(make, "glm", "other")).model == ""
    assert with_model(make.request("", wire="grpc"), pool_of(make, "glm")).model == ""
    others = replace(request, principal=Principal("acme", "alice", models=("x",)))
    assert with_model(others, pool_of(make, "glm")).model == ""


def test_request_without_a_model_where_there_are_several_learns_their_names(make: Any) -> None:
    pool = pool_of(make, "glm", "other")
    with pytest.raises(errors.InvalidRequest, match="'glm', 'other'"):
        check(with_model(make.request("", wire="http"), pool), pool)
