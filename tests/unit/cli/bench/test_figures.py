"""The figures of a load test follow from the times of its requests."""

from __future__ import annotations

import pytest

from autoglm.cli.bench.figures import Outcome, figures, histogram, spread


def outcome(started: float, *chunks: float, **facts: object) -> Outcome:
    given: dict[str, object] = {"ended": chunks[-1] if chunks else started, "output_tokens": 3}
    return Outcome(started, chunks=list(chunks), **(given | facts))  # type: ignore[arg-type]


def test_times_are_from_the_start_between_tokens_and_to_the_end() -> None:
    found = figures([outcome(1.0, 1.1, 1.3, 1.5)], 2.0)

    milliseconds = found["milliseconds"]
    assert milliseconds["ttft"]["p50"] == pytest.approx(100)
    assert milliseconds["itl"] == pytest.approx(dict.fromkeys(milliseconds["itl"], 200))
    assert milliseconds["tpot"]["mean"] == pytest.approx(200)
    assert milliseconds["e2e"]["max"] == pytest.approx(500)
    assert (found["requestsPerSecond"], found["outputTokensPerSecond"]) == (0.5, 1.5)


def test_what_failed_counts_as_an_error_and_nowhere_else() -> None:
    found = figures([outcome(0, 1.0), outcome(0, 9.0, error="HTTP 503")], 1.0)

    assert found["requests"] == {"completed": 1, "failed": 1}
    assert found["errors"] == {"HTTP 503": 1}
    assert found["milliseconds"]["e2e"]["max"] == 1000


def test_a_response_that_is_not_streamed_has_only_a_whole() -> None:
    found = figures([outcome(0, 1.0, is_streamed=False)], 1.0)
    assert list(found["milliseconds"]) == ["e2e"]


def test_nothing_measured_is_no_division_by_zero() -> None:
    assert figures([], 0.0)["requestsPerSecond"] == 0.0


def test_percentiles_are_values_that_were_measured() -> None:
    found = spread([float(each) for each in range(1, 101)])
    assert (found["p50"], found["p90"], found["p99"], found["max"]) == (50, 90, 99, 100)
    assert spread([7.0])["p99"] == 7


def test_every_value_is_in_a_bar() -> None:
    lines = histogram([1.0, 1.1, 5.0, 100.0])
    assert sum(int(line.split()[2]) for line in lines) == 4
    assert lines[-1].split()[0] == "100.0"
    assert len(histogram([3.0, 3.0])) == 1
