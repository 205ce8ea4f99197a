from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.edges.inbound_memory import (
    PATIENCE_SECONDS,
    Arrival,
    MemoryPressure,
    Relief,
    process_limit,
)

LIMIT = 800
NOW = 100.0
_ARRIVALS = st.lists(
    st.builds(
        Arrival,
        tenant=st.sampled_from("abc"),
        since=st.floats(NOW - 10, NOW),
        may_idle=st.booleans(),
    ),
    max_size=12,
)


def short(used: int = LIMIT + 1) -> MemoryPressure:
    """Memory has been given back already, and is short all the same."""
    pressure = MemoryPressure(LIMIT)
    assert pressure.relieve(used, (), NOW) == Relief(is_short=True, trim=True)
    return pressure


def slow(count: int, tenant: str = "a", seconds: float = 5.0) -> list[Arrival]:
    return [Arrival(tenant, NOW - seconds - number) for number in range(count)]


@given(_ARRIVALS, st.integers(0, LIMIT))
def test_nothing_is_given_up_below_the_limit(arriving: list[Arrival], used: int) -> None:
    assert MemoryPressure(LIMIT).relieve(used, arriving, NOW) == Relief()


@given(_ARRIVALS)
def test_what_is_freed_goes_back_before_anything_is_given_up(arriving: list[Arrival]) -> None:
    assert MemoryPressure(LIMIT).relieve(LIMIT + 1, arriving, NOW) == Relief(
        is_short=True, trim=True
    )


@given(_ARRIVALS)
def test_given_up_are_the_longest_of_the_tenant_with_most(arriving: list[Arrival]) -> None:
    given_up = short().relieve(LIMIT + 1, arriving, NOW).give_up
    patient = [a for a in arriving if NOW - a.since >= PATIENCE_SECONDS]
    counted = [a for a in patient if not a.may_idle] or patient
    counts = Counter(a.tenant for a in counted)
    assert len(given_up) == math.ceil(max(counts.values(), default=0) / 2)
    if given_up:
        (tenant,) = {a.tenant for a in given_up}
        assert counts[tenant] == max(counts.values())
        others = [a for a in counted if a.tenant == tenant and a not in given_up]
        assert all(a.since <= other.since for a in given_up for other in others)


def test_messages_that_come_in_one_piece_are_never_given_up() -> None:
    arriving = [Arrival("a", NOW - PATIENCE_SECONDS / 2) for _ in range(100)]
    relief = short().relieve(2 * LIMIT, arriving, NOW)
    assert relief.is_short and not relief.give_up


def test_streams_that_may_idle_are_given_up_last() -> None:
    idle = Arrival("a", NOW - 1000, may_idle=True)
    message = Arrival("b", NOW - 1)
    assert short().relieve(LIMIT + 1, [idle, message], NOW).give_up == [message]
    assert short().relieve(LIMIT + 1, [idle], NOW).give_up == [idle]


def test_memory_is_given_back_again_after_messages_were_given_up() -> None:
    pressure, arriving = short(), slow(4)
    assert len(pressure.relieve(LIMIT + 1, arriving, NOW).give_up) == 2
    assert pressure.relieve(LIMIT + 1, arriving[2:], NOW).trim
    assert len(pressure.relieve(LIMIT + 1, arriving[:2], NOW).give_up) == 1


def test_what_no_message_takes_is_excused_and_more_of_it_is_not() -> None:
    pressure, much = short(2 * LIMIT), 2 * LIMIT
    assert pressure.relieve(much, (), NOW) == Relief()
    assert pressure.relieve(much + LIMIT // 8, slow(4), NOW) == Relief()
    assert pressure.relieve(much + LIMIT // 8 + 1, slow(4), NOW) == Relief(is_short=True, trim=True)
    assert pressure.relieve(much + LIMIT // 8 + 1, slow(4), NOW).give_up


def test_excuse_ends_when_there_is_room_again() -> None:
    pressure = short(2 * LIMIT)
    pressure.relieve(2 * LIMIT, (), NOW)
    pressure.relieve(LIMIT, (), NOW)
    assert pressure.relieve(LIMIT + 1, (), NOW).is_short


def test_parts_of_a_container_leave_a_quarter_of_each_for_what_comes_between_two_looks() -> None:
    assert process_limit(1000, envoy=0, processes=1) == 750
    assert process_limit(1000, envoy=500, processes=2) == 187
