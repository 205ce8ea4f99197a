"""The queue: one run a key, coalescing, each key's own back-off."""

from random import Random

from autoglm.common.pacing import Backoff
from autoglm.operator.queue import Queue

EXACT = Backoff(first=1.0, most=8.0, jitter=0.0)


def queue() -> Queue[str]:
    return Queue(Random(1), EXACT)


def test_events_of_a_key_make_one_run() -> None:
    q = queue()
    for _ in range(3):
        q.add("a", 0)
    assert [q.take(0), q.take(0)] == ["a", None]


def test_a_key_is_never_run_twice_at_once_but_once_more_afterwards() -> None:
    q = queue()
    q.add("a", 0)
    assert q.take(0) == "a"
    q.add("a", 1)
    assert q.take(1) is None
    q.done("a", 2)
    assert [q.take(2), q.take(2)] == ["a", None]


def test_who_waits_longest_goes_first() -> None:
    q = queue()
    for now, key in enumerate("cab"):
        q.add(key, now)
    assert [q.take(9) for _ in range(3)] == ["c", "a", "b"]


def test_an_earlier_time_wins_over_a_later_one_and_is_not_taken_back() -> None:
    q = queue()
    q.add("a", 0, after=60)
    q.add("a", 0, after=5)
    q.add("a", 0, after=30)
    assert (q.take(4.9), q.next_due(), q.take(5)) == (None, 5, "a")


def test_a_key_is_requeued_after_its_delay() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.done("a", 10, requeue_after=3)
    assert (q.take(12.9), q.take(13)) == (None, "a")


def test_failures_wait_longer_each_time_up_to_a_bound_and_success_forgets_them() -> None:
    q, now, delays = queue(), 0.0, []
    q.add("a", now)
    for _ in range(5):
        assert q.take(now) == "a"
        delays.append(q.failed("a", now))
        now += delays[-1]
    assert delays == [1, 2, 4, 8, 8]
    assert q.failing == 1
    q.take(now)
    q.done("a", now)
    q.add("a", now)
    q.take(now)
    assert (q.failing, q.failed("a", now)) == (0, 1)


def test_events_do_not_shorten_a_back_off_but_the_users_change_does() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.failed("a", 0, at_least=50)
    q.add("a", 1)
    assert q.take(49) is None
    q.add("a", 2, urgent=True)
    assert q.take(2) == "a"


def test_a_users_change_during_a_run_that_fails_is_tried_at_once() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.add("a", 1, urgent=True)
    q.failed("a", 2, at_least=50)
    assert q.take(2) == "a"


def test_a_failing_key_delays_no_other() -> None:
    q = queue()
    for key in "ab":
        q.add(key, 0)
    assert q.take(0) == "a"
    q.failed("a", 0, at_least=1000)
    assert q.take(0) == "b"
    q.done("b", 0)
    q.add("b", 1)
    assert q.take(1) == "b"


def test_jitter_only_shortens() -> None:
    backoff, rng = Backoff(first=1, most=8, jitter=0.5), Random(7)
    delays = [backoff.delay(3, rng) for _ in range(200)]
    assert 2 <= min(delays) < 2.5 < 3.5 < max(delays) <= 4


def test_next_due_is_none_when_only_running_keys_are_left() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.add("a", 1)
    assert (q.next_due(), len(q), q.running) == (None, 1, 1)


def test_a_thousand_failures_do_not_overflow() -> None:
    assert EXACT.delay(100_000, Random(1)) == 8
