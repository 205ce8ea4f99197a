"""What the hot paths cost, counted, is what was recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.counts import counted
from benchmarks.counts.baseline import RECORD, Baseline, changes, recorded

CHUNK = "grpc stream, instructions of a chunk, own"
CALLS = "operator at rest, API calls of a reconcile"


@pytest.mark.timeout(120)
def test_nothing_costs_more_or_less_than_recorded() -> None:
    found = changes(recorded(), counted())
    assert not found, "\n  ".join(
        ["", *found, f"if this is meant: {RECORD}, and commit the file with the change"]
    )


def test_an_operator_at_rest_requests_nothing_of_the_api_server() -> None:
    assert recorded().counts[CALLS] == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (CHUNK, 104, ""),
        (CHUNK, 106, f"{CHUNK}: 106 instead of 100 (it may change by 5%)"),
        (CHUNK, 94, f"{CHUNK}: 94 instead of 100 (it may change by 5%)"),
        (CALLS, 101, f"{CALLS}: 101 instead of 100 (it is exact)"),
    ],
)
def test_a_count_that_is_too_far_off_is_named_with_both_values(
    name: str, value: float, told: str
) -> None:
    before, now = Baseline({"python": "3.11"}, {name: 100}), {name: value}
    assert "".join(changes(before, Baseline({"python": "3.11"}, now))) == told


def test_with_another_python_only_a_great_rise_counts() -> None:
    before = Baseline({"python": "3.11"}, {CHUNK: 100, CALLS: 0})
    elsewhere = Baseline({"python": "3.13"}, {CHUNK: 40, CALLS: 0})
    assert changes(before, elsewhere) == []
    assert changes(before, replace(elsewhere, counts={CHUNK: 126, CALLS: 0})) == [
        "counted with python 3.13 instead of 3.11",
        f"{CHUNK}: 126 instead of 100 (it may rise by 25% with other versions)",
    ]


def test_counts_come_and_go_with_the_baseline_only() -> None:
    before, now = Baseline({}, {CHUNK: 1}), Baseline({}, {CALLS: 0})
    assert changes(before, now) == [
        f"{CHUNK} is recorded, but not counted any more",
        f"{CALLS} is counted, but not recorded",
    ]
