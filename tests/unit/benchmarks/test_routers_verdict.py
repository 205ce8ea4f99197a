"""Requirements on our ways: which figure is compared with which bound, and with which other way."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from benchmarks import routers_verdict
from benchmarks.report import Report, Row
from benchmarks.routers_cases import Case, cases
from benchmarks.routers_verdict import Measured, Requirement, Results, requirements

UNARY = Case("rest-unary", 4, 16)
STREAM = Case("rest-stream", 64, 1)


def measured(
    case: Case, way: str, *rates: float, first: float = 0.0, cpu: float = 0.0, errors: int = 0
) -> Measured:
    """One second a round, in which so many requests of one token were sent."""
    rounds = [
        {
            "requests": rate,
            "errors": errors,
            "seconds": 1.0,
            "tokens": rate,
            "time_to_first_message": {"p50": first / 1000},
            "cpu_request": cpu,
            "cpu_chunk": cpu,
        }
        for rate in rates
    ]
    return Measured(case, way, rounds)


def rows(*found: Measured) -> list[Row]:
    results: Results = {(one.case.name, one.way): one for one in found}
    return routers_verdict.report(results, Report("r", "", (), conditions="a run")).rows


def of(rows: Iterable[Row], what: str) -> Row:
    return next(row for row in rows if str(row["requirement"]).startswith(what))


def test_the_best_router_is_that_of_the_case_and_the_ratio_that_of_each_round() -> None:
    found = of(
        rows(
            measured(UNARY, "embedded-stock", 90, 10, 80),
            measured(UNARY, "vllm-router", 100, 10, 100),
            measured(UNARY, "smg", 50, 60, 50),
            measured(UNARY, "litellm", 500, 500, 500),
        ),
        "rate, of the best",
    )
    assert (found["of"], found["figure"], found["verdict"]) == ("vllm-router", 0.9, "must met")
    assert found["rounds"] == "0.8-1"


def test_what_was_not_measured_has_no_row() -> None:
    assert rows() == []
    assert rows(measured(UNARY, "vllm-router", 1), measured(UNARY, "embedded", 1)) == []


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [(0.79, "missed"), (0.8, "must met"), (0.99, "must met"), (1, "goal met")],
)
def test_a_figure_misses_or_meets_must_and_goal(figure: float, verdict: str) -> None:
    assert Requirement("", "", "", "", 0.8, 1.0).verdict(figure) == verdict


def test_a_bound_alone_is_met_or_missed() -> None:
    assert Requirement("", "", "", "", 0.8).verdict(0.8) == "met"
    assert Requirement("", "", "", "", goal=60).verdict(59) == "goal missed"
    assert Requirement("", "", "", "").verdict(5) == "–"


@pytest.mark.parametrize(("first", "verdict"), [(0.4, "met"), (0.5, "missed")])
def test_a_first_token_may_be_late_by_so_much(first: float, verdict: str) -> None:
    ours = measured(STREAM, "embedded-stock", 1, first=first)
    found = of(rows(ours, measured(STREAM, "direct", 1, first=0.15)), "first token")
    assert (found["must"], found["verdict"]) == ("≤ 0.3", verdict)


def test_failed_requests_are_in_the_verdict_and_not_in_the_rate() -> None:
    ours = measured(UNARY, "embedded-stock", 100, errors=30)
    found = of(rows(ours, measured(UNARY, "sketch", 100)), "rate, of the sketch")
    assert (found["figure"], found["verdict"]) == (0.7, "missed, 30 errors")


def test_cpu_is_compared_without_a_bound() -> None:
    ours = measured(UNARY, "embedded-stock", 100, cpu=80)
    found = of(rows(ours, measured(UNARY, "smg", 100, cpu=40)), "CPU of a request, of the best")
    assert (found["figure"], found["must"], found["verdict"]) == (2, "–", "–")


def test_every_requirement_is_of_a_case_that_is_measured() -> None:
    names = [case.name for case in cases()]
    assert {one.case for one in requirements()} <= set(names)
    assert len(names) == len(set(names))
