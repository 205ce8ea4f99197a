"""The ratchet of words that the glossary replaces."""

from __future__ import annotations

import pytest
from scripts.check_words import ALLOWED, allowed, exceeded, update


@pytest.mark.parametrize(
    ("counts", "over"),
    [
        ({"a": 2, "b": 1}, {}),
        ({"a": 1}, {}),
        ({"a": 3, "b": 1}, {"a": 3}),
        ({"a": 2, "b": 1, "new": 1}, {"new": 1}),
        ({"a": 3}, {"a": 3}),
    ],
)
def test_no_file_may_have_more_than_its_count(counts: dict[str, int], over: dict[str, int]) -> None:
    assert exceeded({"a": 2, "b": 1}, counts) == over


def test_a_file_that_moved_keeps_its_count() -> None:
    baseline = {"a": 2, "b": 1}
    assert not exceeded(baseline, {"x/a": 2, "b": 1})
    assert not exceeded(baseline, {"x": 1, "y": 1, "b": 1})
    assert exceeded(baseline, {"x/a": 3, "b": 1}) == {"x/a": 3}


def test_the_sum_may_move_between_files_and_fall_but_not_rise() -> None:
    baseline = {"a": 2, "b": 1}
    assert not update(baseline, {"a": 3})
    assert not update(baseline, {"b": 2})
    assert update(baseline, {"a": 4}).startswith("4 words instead of 3: the count may only fall")


def test_every_rule_has_a_reason() -> None:
    rules = allowed(ALLOWED.read_text())
    assert rules
    assert all(rule.reason for rule in rules)
