from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.pacing import TokenBucket


def test_bucket_begins_full_and_fills_up_to_its_capacity() -> None:
    bucket = TokenBucket(2.0, 10.0, 0.0)
    bucket.take(6.0, 0.0)
    assert [bucket.level(at) for at in (0.0, 1.0, 100.0)] == [4.0, 6.0, 10.0]


def test_wait_is_until_there_is_enough_or_it_is_full() -> None:
    bucket = TokenBucket(2.0, 10.0, 0.0)
    bucket.take(14.0, 0.0)
    assert bucket.wait(2.0, 0.0) == 3.0
    assert bucket.wait(1000.0, 0.0) == 7.0
    assert bucket.wait(2.0, 3.0) == 0.0


def test_giving_back_does_not_overfill() -> None:
    bucket = TokenBucket(2.0, 10.0, 0.0)
    bucket.take(-5.0, 0.0)
    assert bucket.level(0.0) == 10.0


def test_clock_set_back_adds_nothing() -> None:
    bucket = TokenBucket(2.0, 10.0, 5.0)
    bucket.take(10.0, 5.0)
    assert bucket.level(1.0) == bucket.level(5.0) == 0.0


@given(
    st.floats(0.1, 100), st.floats(1, 1000), st.lists(st.tuples(st.floats(0, 10), st.floats(0, 50)))
)
def test_taken_tokens_stay_within_capacity_and_rate(
    rate: float, capacity: float, requests: list[tuple[float, float]]
) -> None:
    bucket, now, passed = TokenBucket(rate, capacity, 0.0), 0.0, 0.0
    for pause, amount in requests:
        now += pause
        if amount <= capacity and bucket.wait(amount, now) == 0:
            bucket.take(amount, now)
            passed += amount
    assert passed <= (capacity + rate * now) * (1 + 1e-9)
