import random

import pytest

from autoglm.client.call import RetryPolicy, should_retry, wait_seconds
from autoglm.common import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.NoReadyEndpoint("none"), True),
        (errors.ShuttingDown("going"), True),
        (errors.QueueFull("full", retry_after=1), True),
        (errors.QueueFull("full"), False),
        (errors.RequestTooLarge("big"), False),
        (errors.StreamBroken("broken"), False),
        (errors.DeadlineExceeded("late"), False),
        (errors.Internal("bug"), False),
        (ValueError("ours"), False),
    ],
)
def test_only_not_now_is_tried_again(error: BaseException, expected: bool) -> None:
    assert should_retry(error) is expected


def test_waits_double_up_to_a_bound_and_are_jittered() -> None:
    policy = RetryPolicy(first_wait=1, longest_wait=4)
    rng = random.Random(1)
    waits = [[wait_seconds(None, n, policy, rng) for _ in range(200)] for n in (1, 2, 3, 9)]
    for ceiling, drawn in zip((1, 2, 4, 4), waits, strict=True):
        assert 0.9 * ceiling < max(drawn) <= ceiling
        assert min(drawn) < 0.1 * ceiling


def test_the_server_says_how_long_to_wait_at_least() -> None:
    error = errors.QueueFull("full", retry_after=3)
    assert wait_seconds(error, 1, RetryPolicy(first_wait=0), random.Random()) == 3
