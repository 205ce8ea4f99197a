from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.api.spec.traffic import OutlierDetection
from autoglm.common import errors
from autoglm.gateway.proxy.outlier_detection import Health, is_failure
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled
from autoglm.gateway.request.request import Response, whole

POLICY = OutlierDetection(consecutive_failures=3, interval_seconds=10.0)
FLEET = ["a", "b", "c"]


def feed(health: Health, url: str, now: float, ends: str, waited: float | None = None) -> None:
    for end in ends:
        health.note(url, now, failed=end == "x", waited=waited)


def judge(health: Health, url: str, now: float, ready: list[str] = FLEET) -> str:
    return health.judge(url, POLICY, ready, len(FLEET), now)


def test_failures_in_a_row_open_the_circuit_and_others_do_not() -> None:
    health = Health()
    feed(health, "a", 0, "xx.xx.xx")
    assert judge(health, "a", 0) == ""
    feed(health, "a", 0, "x")
    assert judge(health, "a", 0) == "3 requests in a row failed"


@pytest.mark.parametrize(("ends", "now"), [("xxx", 0.0), ("..", 10.0)])
def test_the_fleet_is_checked_for_a_row_of_failures_and_after_an_interval(
    ends: str, now: float
) -> None:
    health = Health()
    assert not health.is_due("a", POLICY, now)
    feed(health, "a", 0, ends)
    assert health.is_due("a", POLICY, now)


def test_in_between_the_fleet_is_not_checked() -> None:
    health = Health()
    feed(health, "a", 0, "xx.xx")
    assert not health.is_due("a", POLICY, 9)


def test_the_last_endpoint_stays() -> None:
    health = Health()
    feed(health, "a", 0, "x" * 50)
    assert judge(health, "a", 0, ["a"]) == ""


def test_no_more_endpoints_go_than_may() -> None:
    health = Health()
    for url in FLEET:
        feed(health, url, 0, "xxx")
    assert judge(health, "a", 0) and not judge(health, "b", 0, ["b", "c"])


def test_a_share_of_failures_shows_after_an_interval() -> None:
    health = Health()
    feed(health, "a", 0, "xx." * 5)
    assert judge(health, "a", 9) == ""
    assert judge(health, "a", 10) == "67 % of its requests failed"


def test_few_requests_say_nothing() -> None:
    health = Health()
    feed(health, "a", 0, "xx.xx.")
    assert judge(health, "a", 10) == ""


@pytest.mark.parametrize(("mine", "stands_out"), [(0.4, False), (1.6, True)])
def test_a_slow_endpoint_stands_out_against_the_others(mine: float, stands_out: bool) -> None:
    health = Health()
    for url, waited in (("a", mine), ("b", 0.2), ("c", 0.3)):
        feed(health, url, 0, "." * 10, waited)
    assert bool(judge(health, "a", 10)) is stands_out


def test_a_slow_fleet_has_no_outlier() -> None:
    health = Health()
    for url in FLEET:
        feed(health, url, 0, "." * 10, 30.0)
    assert not any(judge(health, url, 10) for url in FLEET)


@given(st.lists(st.tuples(st.sampled_from(FLEET), st.booleans(), st.floats(0, 60))))
def test_one_endpoint_always_stays(story: list[tuple[str, bool, float]]) -> None:
    health, ready = Health(), list(FLEET)
    for now, (url, failed, waited) in enumerate(story):
        health.note(url, now, failed=failed, waited=waited)
        if judge(health, url, now, ready):
            ready.remove(url)
        assert len(ready) >= 2  # of three, half may go


UNAVAILABLE = errors.NoReadyEndpoint("no")


@pytest.mark.parametrize(
    ("error", "status", "failed"),
    [
        (None, 200, False),
        (None, 404, None),
        (None, 429, None),
        (None, 500, True),
        (None, 501, None),
        (errors.InvalidRequest("bad"), None, None),
        (errors.Cancelled("gone"), None, None),
        (GeneratorExit(), None, None),
        (errors.DeadlineExceeded("late"), None, None),
        (errors.QueueFull("full"), None, None),
        (errors.Internal("bug"), None, True),
        (Stalled(UNAVAILABLE), None, True),
        (RetryElsewhere(UNAVAILABLE), None, True),
        (RetryElsewhere(UNAVAILABLE, draining=True), None, None),
        # The pool ejects it for that.
        (RetryElsewhere(UNAVAILABLE, gone=True), None, None),
    ],
)
def test_only_what_the_endpoint_did_counts(error: Any, status: int | None, failed: Any) -> None:
    reply = Response(whole(b""), status=status) if status else None
    assert is_failure(error, reply) is failed


def test_another_endpoints_response_counts_against_the_one_that_gave_none() -> None:
    assert is_failure(None, Response(whole(b""), served_by_fallback=True)) is True
