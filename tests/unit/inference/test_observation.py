import asyncio
import logging

import pytest

from autoglm.common import errors
from autoglm.common.errors import Outcome, outcome_of_status
from autoglm.common.request_telemetry import trace_headers
from autoglm.inference.http.observer import route_of
from autoglm.inference.observation import Observation, outcome_of


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (None, Outcome.SERVED),
        (errors.InvalidRequest("x"), Outcome.REJECTED_INVALID),
        (errors.Unimplemented("x"), Outcome.REJECTED_INVALID),
        (errors.EngineDead("x"), Outcome.REJECTED_UNAVAILABLE),
        (errors.Internal("x"), Outcome.FAILED),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (GeneratorExit(), Outcome.CANCELLED),
        (TimeoutError(), Outcome.EXPIRED),
        (ValueError("x"), Outcome.FAILED),
    ],
)
def test_every_failure_has_an_outcome(failure: BaseException | None, outcome: Outcome) -> None:
    assert outcome_of(failure) is outcome


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SERVED),
        (404, Outcome.REJECTED_INVALID),
        (499, Outcome.CANCELLED),
        (500, Outcome.FAILED),
        (503, Outcome.REJECTED_UNAVAILABLE),
    ],
)
def test_every_status_has_an_outcome(status: int, outcome: Outcome) -> None:
    assert outcome_of_status(status) is outcome


def test_a_callers_trace_is_passed_on_where_nothing_is_recorded() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen = Observation.begin("grpc", "m", "r", {"traceparent": parent})
    assert trace_headers(seen.span)["traceparent"] == parent
    seen.end(Outcome.SERVED, "OK")


def test_one_line_says_how_a_request_went(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "autoglm.inference.request"):
        seen = Observation.begin("http", "POST /v1/completions", "r1", {})
        seen.chunk()
        seen.end(Outcome.SERVED, "200")
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    assert (fields["request_id"], fields["outcome"], fields["code"]) == ("r1", "served", "200")
    assert 0 <= fields["first_chunk_seconds"] <= fields["seconds"]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/completions", "/v1/completions"),
        ("/v2/models/a/infer", "/v2/models"),
        ("/anything/else", "other"),
    ],
)
def test_routes_are_bounded(path: str, route: str) -> None:
    assert route_of(path) == route
