"""Exactly one of several installations that watch a resource reconciles it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.operator.ownership.claims import POLLS, Freshness, Installation

A, B = Installation("a/operator"), Installation("b/operator")
X = Installation("x/operator", "x")


def claimed(by: Installation, name: str = "glm") -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name, "annotations": by.annotations}}


def test_a_claim_counts_for_the_others_of_its_class_only() -> None:
    assert A.other_claim("glm", [claimed(A)]) == ""
    assert B.other_claim("glm", [claimed(A)]) == "a/operator"
    assert X.other_claim("glm", [claimed(A)]) == ""
    assert A.other_claim("glm", [claimed(X)]) == ""


def test_only_the_resources_own_config_map_carries_the_claim() -> None:
    assert B.other_claim("glm", [claimed(A, "other")]) == ""
    assert B.other_claim("glm", [{"kind": "ConfigMap", "metadata": {"name": "glm"}}]) == ""


def test_without_a_lease_no_resource_is_claimed_or_skipped() -> None:
    assert Installation().annotations == {}
    assert Installation().other_claim("glm", [claimed(A)]) == ""


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, (True, False)),
        ({"operatorClass": ""}, (True, False)),
        ({"operatorClass": "x"}, (False, True)),
    ],
)
def test_each_class_runs_its_own_resources(
    spec: dict[str, str], expected: tuple[bool, bool]
) -> None:
    resource = {"spec": spec}
    assert (A.is_responsible(resource), X.is_responsible(resource)) == expected


@given(st.lists(st.floats(0.1, 30), min_size=1, max_size=40))
def test_a_lease_that_is_renewed_is_never_stale(pauses: list[float]) -> None:
    known, now = Freshness(300, 0), 0.0
    for turn, pause in enumerate(pauses):
        now += pause
        known.seen(str(turn), now)
        assert not known.is_stale(now)


@pytest.mark.parametrize("version", ["7", ""])
def test_a_lease_that_is_not_renewed_or_is_gone_is_stale_after_the_time_and_not_before(
    version: str,
) -> None:
    known = Freshness(300, 0)
    known.seen(version, 0)
    known.seen(version, 299)
    assert not known.is_stale(299)
    known.seen(version, 300)
    assert known.is_stale(300)
    # By then it may have been renewed.
    assert not known.is_stale(301 + 300 / POLLS)
    known.seen("8", 400)
    assert not known.is_stale(400)


def test_a_lease_that_cannot_be_read_is_not_stale() -> None:
    known = Freshness(300, 0)
    for now in range(0, 1000, 30):
        known.unknown("403 Forbidden", now)
        assert not known.is_stale(now)
    known.seen("7", 1000)
    assert not known.is_stale(1200)
