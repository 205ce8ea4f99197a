"""Traffic of tests can be slowed while something starts, and is at full speed right after."""

import pytest
from tests.support.traffic import traffic


def served() -> None: ...


def test_slowed_clients_pause_and_are_at_full_speed_right_after() -> None:
    with traffic([served] * 2) as result:
        result.wait_served(10, 10)
        with result.slowed(60), pytest.raises(TimeoutError):
            # What was under way still ends.
            result.wait_served(5, 0.2)
        result.wait_served(10, 10)


def test_traffic_ends_in_a_pause() -> None:
    with traffic([served]) as result, result.slowed(60):
        result.stop()
    assert result.failures == []
