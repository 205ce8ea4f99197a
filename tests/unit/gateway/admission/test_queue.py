"""What the queue promises, whatever comes in whatever order. Time is passed in."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common import errors
from autoglm.gateway.admission.capacity import Capacity
from autoglm.gateway.admission.lane import State, Waiter
from autoglm.gateway.admission.queue import Bounds, Queue, Verdict

FAR = 1e9
BOUNDS = Bounds(requests=8, size=1000, wait_seconds=30.0, ageing_seconds=5.0)


def waiter(tenant: str = "a", tokens: float = 10, **changes: Any) -> Waiter:
    return Waiter(tenant, tokens, **({"size": 1, "deadline": FAR} | changes))


def queue(slots: int = 1, bounds: Bounds = BOUNDS) -> Queue:
    made = Queue("glm", bounds)
    made.resize(Capacity(slots), 0.0)
    return made


def full_queue(*waiters: Waiter, bounds: Bounds = BOUNDS) -> tuple[Queue, Waiter]:
    """One slot, which is taken; these wait."""
    made, first = queue(1, bounds), waiter("first")
    made.arrive(first, 0.0)
    for one in waiters:
        assert made.arrive(one, 0.0) == []
    return made, first


def served_in_turn(made: Queue, running: Waiter, now: float = 0.0) -> list[Waiter]:
    """All that wait, in the order in which a single slot is given to them."""
    order = []
    while verdicts := made.leave(running, now):
        (verdict,) = verdicts
        assert verdict.error is None
        running = verdict.waiter
        order.append(running)
    return order


def error_of(verdicts: list[Verdict], about: Waiter) -> errors.AutoGLMError | None:
    (error,) = [verdict.error for verdict in verdicts if verdict.waiter is about]
    return error


def test_free_place_is_taken_at_once() -> None:
    made, one = queue(), waiter()
    assert made.arrive(one, 0.0) == [Verdict(one)]
    assert (one.state, made.admitted, made.waiting) == (State.ADMITTED, 1, 0)


def test_tenant_is_served_in_the_order_of_arrival() -> None:
    waiters = [waiter() for _ in range(5)]
    assert served_in_turn(*full_queue(*waiters)) == waiters


def test_lower_priority_numbers_go_first() -> None:
    late, soon, sooner = waiter(priority=3), waiter(priority=0), waiter(priority=-2)
    assert served_in_turn(*full_queue(late, soon, sooner)) == [sooner, soon, late]


def test_priorities_out_of_range_count_as_the_last_in_range() -> None:
    first, second = waiter("a", priority=2**31 - 1), waiter("b", priority=15)
    assert served_in_turn(*full_queue(first, second)) == [first, second]


def test_one_admission_in_ten_goes_to_the_longest_wait_once_that_is_too_long() -> None:
    bounds = Bounds(requests=100, ageing_seconds=5.0)
    low = waiter("low", priority=9)
    made, running = full_queue(low, *(waiter() for _ in range(30)), bounds=bounds)
    order = served_in_turn(made, running, now=6.0)
    assert order.index(low) == 9


def test_low_priority_waits_its_turn_while_its_wait_is_short() -> None:
    low = waiter("low", priority=9)
    made, running = full_queue(low, *(waiter() for _ in range(7)))
    assert served_in_turn(made, running, now=4.0)[-1] is low


def test_service_follows_weights_while_all_wait() -> None:
    bounds = Bounds(requests=200)
    heavy = [waiter("heavy", weight=3.0) for _ in range(90)]
    light = [waiter("light") for _ in range(90)]
    order = served_in_turn(*full_queue(*heavy, *light, bounds=bounds))
    assert sum(one.tenant == "heavy" for one in order[:80]) == pytest.approx(60, abs=2)


def test_returning_tenant_has_no_credit_from_its_pause() -> None:
    busy = [waiter("busy") for _ in range(40)]
    made, running = full_queue(*busy[:20], bounds=Bounds(requests=100))
    for _ in range(15):
        (verdict,) = made.leave(running, 0.0)
        running = verdict.waiter
    back = [waiter("back") for _ in range(10)]
    for one in [*back, *busy[20:]]:
        made.arrive(one, 0.0)
    tenants = [one.tenant for one in served_in_turn(made, running)[:10]]
    assert abs(tenants.count("back") - 5) <= 1


def test_what_was_charged_too_much_is_given_back() -> None:
    made, running = full_queue(
        waiter("a", 100), waiter("b", 100), waiter("a", 100), waiter("b", 100)
    )
    (first,) = made.leave(running, 0.0)
    assert first.waiter.tenant == "a"
    (second,) = made.leave(first.waiter, 0.0, used=10)
    # a has 10 on its account, b none yet.
    assert second.waiter.tenant == "b"
    (third,) = made.leave(second.waiter, 0.0, used=100)
    assert third.waiter.tenant == "a"


def test_newcomer_is_refused_by_a_full_queue_with_a_time_to_come_back() -> None:
    made, _ = full_queue(*(waiter() for _ in range(8)))
    late = waiter()
    error = error_of(made.arrive(late, 0.0), late)
    assert isinstance(error, errors.QueueFull) and error.retry_after == 1.0
    assert (late.state, made.waiting) == (State.GONE, 8)


def test_flood_displaces_itself_and_not_a_light_tenant() -> None:
    flood = [waiter("flood") for _ in range(8)]
    made, _ = full_queue(*flood)
    light = waiter("light")
    verdicts = made.arrive(light, 0.0)
    assert isinstance(error_of(verdicts, flood[-1]), errors.QueueFull) and len(verdicts) == 1
    assert (light.state, made.waiting) == (State.WAITING, 8)
    again = waiter("flood")
    assert error_of(made.arrive(again, 0.0), again) is not None
    assert light.state is State.WAITING


def test_flood_of_bytes_displaces_itself_too() -> None:
    flood = [waiter("flood", size=490) for _ in range(2)]
    made, _ = full_queue(*flood)
    light = waiter("light", size=100)
    assert isinstance(error_of(made.arrive(light, 0.0), flood[-1]), errors.QueueFull)
    assert made.waiting_bytes == 590


def test_newcomer_of_a_better_priority_displaces_the_worst() -> None:
    low = [waiter("low", priority=5) for _ in range(8)]
    made, _ = full_queue(*low)
    verdicts = made.arrive(waiter("high"), 0.0)
    assert [verdict.waiter for verdict in verdicts] == [low[-1]]


def test_request_too_large_for_the_whole_queue_displaces_none() -> None:
    made, _ = full_queue(waiter("b", size=500))
    huge = waiter("a", size=1001)
    (verdict,) = made.arrive(huge, 0.0)
    assert verdict.waiter is huge and verdict.error is not None


def paced(made: Queue, seconds: float, count: int = 40) -> None:
    """Teach the queue that a slot is held so long."""
    for _ in range(count):
        one = waiter()
        made.arrive(one, 0.0)
        made.leave(one, seconds)


def test_hopeless_deadline_is_refused_at_once_and_others_wait() -> None:
    made = queue(1)
    paced(made, 2.0)
    made.arrive(waiter(), 100.0)
    made.arrive(waiter(), 100.0)
    hopeless, hopeful = waiter(deadline=103.0), waiter(deadline=110.0)
    error = error_of(made.arrive(hopeless, 100.0), hopeless)
    assert isinstance(error, errors.QueueFull) and "deadline" in error.message
    assert made.arrive(hopeful, 100.0) == []


def test_turn_that_comes_too_late_is_given_to_the_next() -> None:
    made = queue(1)
    paced(made, 2.0)
    running, slow, fine = waiter(), waiter(deadline=109.0), waiter()
    for one in (running, slow, fine):
        made.arrive(one, 100.0)
    verdicts = made.leave(running, 108.5)
    assert isinstance(error_of(verdicts, slow), errors.QueueFull)
    assert error_of(verdicts, fine) is None and fine.state is State.ADMITTED


def test_retry_after_is_the_time_in_which_the_queue_drains() -> None:
    made = queue(1)
    paced(made, 2.0)
    made.arrive(waiter(), 100.0)
    for _ in range(8):
        made.arrive(waiter(), 100.0)
    assert made.retry_after() == pytest.approx(16.0)


def test_retry_after_stays_within_bounds() -> None:
    made = queue(1)
    assert made.retry_after() == 1.0
    paced(made, 1000.0)
    for _ in range(9):
        made.arrive(waiter(deadline=FAR), 2000.0)
    assert made.retry_after() == 60.0


def test_whose_deadline_passes_hears_of_it() -> None:
    short, long = waiter(deadline=3.0), waiter()
    made, _ = full_queue(short, long)
    assert made.expire(2.9) == []
    (verdict,) = made.expire(3.0)
    assert verdict.waiter is short and isinstance(verdict.error, errors.DeadlineExceeded)


@pytest.mark.parametrize(("slots", "error"), [(1, errors.QueueFull), (0, errors.NoReadyEndpoint)])
def test_longest_wait_ends_with_what_was_missing(slots: int, error: type[Exception]) -> None:
    one = waiter()
    made, _ = full_queue(one)
    made.resize(Capacity(slots), 1.0)
    (verdict,) = made.expire(30.0)
    assert verdict.waiter is one and isinstance(verdict.error, error)


def test_tokens_are_reserved_and_the_next_is_not_overtaken() -> None:
    made = Queue("glm", BOUNDS)
    made.resize(Capacity(8, tokens=100), 0.0)
    first, large, small = waiter("a", 60), waiter("a", 60), waiter("a", 10)
    for one in (first, large, small):
        made.arrive(one, 0.0)
    assert (made.admitted, made.waiting, made.is_token_bound) == (1, 2, True)
    assert [v.waiter for v in made.leave(first, 1.0)] == [large, small]


def test_looking_for_room_again_and_again_lets_none_overtake() -> None:
    made = Queue("glm", BOUNDS)
    made.resize(Capacity(1, tokens=100), 0.0)
    # The small one has waited longest; the large one has the turn by its priority.
    first, small, large = waiter("a", 60), waiter("a", 10, priority=1), waiter("a", 60)
    for number, one in enumerate((first, small, large)):
        made.arrive(one, float(number))
    made.resize(Capacity(8, tokens=100), 3.0)
    for _ in range(30):
        assert made.expire(12.0) == []


def test_request_larger_than_the_cache_goes_alone() -> None:
    made = Queue("glm", BOUNDS)
    made.resize(Capacity(8, tokens=100), 0.0)
    huge, small = waiter("a", 500), waiter("b", 1)
    assert made.arrive(huge, 0.0) == [Verdict(huge)]
    assert made.arrive(small, 0.0) == []
    assert made.leave(huge, 1.0) == [Verdict(small)]


def test_all_are_rejected_when_none_may_wait_any_more() -> None:
    waiters = [waiter("a"), waiter("b", priority=4)]
    made, _ = full_queue(*waiters)
    gone = errors.ShuttingDown("bye")
    assert {v.waiter for v in made.reject_all(gone, 0.0)} == set(waiters)
    assert made.waiting == 0


def flooded(reserved: int = 2, slots: int = 8) -> tuple[Queue, list[Waiter]]:
    """A queue in which one tenant wants all there is."""
    made, flood = Queue("glm", BOUNDS), [waiter("flood") for _ in range(slots + 4)]
    made.resize(Capacity(slots, tokens=1000, reserved=reserved), 0.0)
    for one in flood:
        made.arrive(one, 0.0)
    return made, flood


def test_one_tenant_alone_gets_every_place() -> None:
    made, _ = flooded()
    assert made.admitted == 8


def test_light_tenant_finds_a_place_free_from_its_second_request_on() -> None:
    made, flood = flooded()
    first = waiter("light")
    assert made.arrive(first, 0.0) == []
    assert [v.waiter for v in made.leave(flood[0], 1.0)] == [first]
    # What ends of the flood is not taken up again until slots are free.
    assert [made.leave(one, 1.0) for one in flood[1:3]] == [[], []]
    assert [v.waiter.tenant for v in made.leave(first, 1.0)] == ["flood"]
    assert made.admitted == 6
    for now in (2.0, 20.0, 61.0):
        light = waiter("light", deadline=now + 9)
        assert made.arrive(light, now) == [Verdict(light)]
        made.leave(light, now + 0.1)


def test_light_tenant_finds_tokens_free_as_well() -> None:
    made = Queue("glm", BOUNDS)
    made.resize(Capacity(8, tokens=100, reserved=2), 0.0)
    flood = [waiter("flood", 25) for _ in range(8)]
    for one in flood:
        made.arrive(one, 0.0)
    first = waiter("light", 20)
    assert made.arrive(first, 0.0) == []
    assert [v.waiter for v in made.leave(flood[0], 1.0)] == [first]
    assert made.leave(flood[1], 1.0) == [] and made.is_token_bound
    second = waiter("light", 20)
    assert made.arrive(second, 1.0) == [Verdict(second)]


def test_slots_are_reserved_for_a_minute_after_they_were_needed() -> None:
    made, flood = flooded()
    light = waiter("light")
    made.arrive(light, 0.0)
    for one in (*flood[:3], light):
        made.leave(one, 1.0)
    assert made.admitted == 6 and made.expire(29.0) == [] and made.reserved == 2
    many = [waiter("flood") for _ in range(4)]
    assert not any(made.arrive(one, 59.0) for one in many)
    assert len(made.expire(60.0)) >= 2 and made.admitted == 8 and made.reserved == 0


def test_flood_of_a_light_tenant_fills_the_reserved_slots_and_then_waits() -> None:
    made, flood = flooded()
    made.arrive(waiter("light"), 0.0)
    for one in flood[:3]:
        made.leave(one, 1.0)
    others = [waiter("light") for _ in range(5)]
    at_once = [bool(made.arrive(one, 1.0)) for one in others]
    assert at_once == [True, False, False, False, False]
    assert made.admitted <= 8


def test_light_request_of_a_lower_priority_does_not_go_before_those_that_wait() -> None:
    made, flood = flooded()
    made.arrive(waiter("light"), 0.0)
    for one in flood[:3]:
        made.leave(one, 1.0)
    assert made.arrive(waiter("other", priority=1), 2.0) == []
    assert len(made.arrive(waiter("other"), 2.0)) == 0, "it has one waiting now"
    third = waiter("third")
    assert made.arrive(third, 2.0) == [Verdict(third)]


COSTS = st.lists(st.integers(1, 100), min_size=5, max_size=60)


@given(costs=st.tuples(COSTS, COSTS), weights=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)))
def test_service_of_two_that_wait_differs_by_two_requests_at_most(
    costs: tuple[list[int], list[int]], weights: tuple[float, float]
) -> None:
    made = queue(1, Bounds(requests=1000))
    running = waiter("z", 1)
    made.arrive(running, 0.0)
    for tenant, list_of, weight in zip("ab", costs, weights, strict=True):
        for tokens in list_of:
            made.arrive(waiter(tenant, tokens, weight=weight), 0.0)
    order = served_in_turn(made, running)
    both = itertools.takewhile(
        lambda i: {"a", "b"} <= {w.tenant for w in order[i:]}, itertools.count()
    )
    served = {"a": 0.0, "b": 0.0}
    most = max(max(c) / w for c, w in zip(costs, weights, strict=True))
    for i in both:
        served[order[i].tenant] += order[i].tokens / order[i].weight
        assert abs(served["a"] - served["b"]) <= 2 * most + 1e-6


@given(
    priorities=st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    flood=st.lists(st.sampled_from("xyz"), min_size=400, max_size=400),
)
def test_nothing_starves_beside_an_endless_flood_of_better_priority(
    priorities: list[int], flood: list[str]
) -> None:
    bounds = Bounds(requests=10_000, wait_seconds=1e6, ageing_seconds=5.0)
    made = queue(1, bounds)
    running = waiter("first")
    made.arrive(running, 0.0)
    low = [waiter("low", priority=priority) for priority in priorities]
    for one in low:
        made.arrive(one, 0.0)
    now = 6.0
    for tenant in flood:
        made.arrive(waiter(tenant, priority=-15), now)
        (verdict,) = made.leave(running, now)
        running, now = verdict.waiter, now + 0.01
    assert all(one.state is State.GONE for one in low[:30]) or len(low) * 10 > len(flood)


def test_memory_of_tenants_and_of_ended_waits_stays_bounded() -> None:
    made, running = full_queue()
    for number in range(50_000):
        one = waiter(f"t{number}", deadline=1e6)
        made.arrive(one, float(number))
        if number % 2:
            made.leave(one, float(number))
        else:
            (verdict,) = made.leave(running, float(number))
            running = verdict.waiter
    assert len(made._counters) <= 25_000
    assert len(made._ends) <= 200
