"""When a collection is read again: never in a tight loop, never late without a reason."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from autoglm.kube.pacing import SHORT_SECONDS, Pacing
from autoglm.kube.reflector import BACKOFF

SHORT = st.floats(0, SHORT_SECONDS * 0.99)


def pacing(seed: int = 1) -> Pacing:
    return Pacing(Random(seed), BACKOFF)


@given(st.lists(st.tuples(SHORT, st.integers(0, 3)), min_size=20, max_size=60), st.integers())
def test_watches_that_end_early_begin_at_most_about_once_a_second(
    ends: list[tuple[float, int]], seed: int
) -> None:
    paced = pacing(seed)
    spent = sum(lasted + paced.ended(lasted, events) for lasted, events in ends)
    assert spent >= 0.1 * len(ends)


@given(st.integers())
def test_a_watch_that_lasted_begins_again_at_once(seed: int) -> None:
    paced = pacing(seed)
    for _ in range(5):
        paced.failed()
    assert paced.ended(240, 0) == 0
    assert paced.failures == 0


def test_delays_grow_to_the_bound_and_not_beyond() -> None:
    paced = pacing()
    delays = [paced.ended(0, 0) for _ in range(20)]
    assert delays[0] <= BACKOFF.first
    assert BACKOFF.most / 2 <= delays[-1] <= BACKOFF.most


def test_events_are_never_more_than_a_second_late_where_each_watch_brings_one() -> None:
    paced = pacing()
    assert all(paced.ended(0.01, 1) <= SHORT_SECONDS for _ in range(50))


@given(st.integers(1, 10_000), st.integers())
def test_backoff_is_bounded_and_never_zero(failures: int, seed: int) -> None:
    assert 0.05 <= BACKOFF.delay(failures, Random(seed)) <= 10.0


def test_the_servers_own_delay_is_kept() -> None:
    assert pacing().failed(retry_after=30) >= 30
