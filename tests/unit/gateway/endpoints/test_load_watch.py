"""How often pods report their load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.endpoints.load_watch import load_interval


@given(st.integers(0, 1000), st.floats(200, 10_000))
def test_all_pods_together_send_no_more_than_is_allowed(pods: int, per_second: float) -> None:
    interval = load_interval(pods, per_second)
    assert 0.05 <= interval <= 1.0
    if interval < 1.0:
        assert pods / interval <= per_second * 1.001


def test_few_pods_report_as_often_as_they_like() -> None:
    assert {load_interval(pods, 1000) for pods in (0, 1, 50)} == {0.05}


def test_no_pod_is_silent_for_longer_than_a_second() -> None:
    assert load_interval(100_000, 1000) == 1.0
