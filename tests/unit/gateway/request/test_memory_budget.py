from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.errors import QueueFull
from autoglm.gateway.request.memory_budget import Memory, MemoryReservation

LIMIT = 100
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(("open", "take", "give", "close")),
        st.integers(0, 7),
        st.integers(0, LIMIT),
    ),
    max_size=80,
)


def owned(holds: list[tuple[str, MemoryReservation]], tenant: str) -> int:
    return sum(hold.size for whose, hold in holds if whose == tenant)


@given(_STEPS)
def test_bounds_hold_in_any_order_and_all_is_given_back(
    steps: list[tuple[str, int, int]],
) -> None:
    memory, holds = Memory(LIMIT), list[tuple[str, MemoryReservation]]()
    for what, number, size in steps:
        if what == "open":
            tenant = f"tenant-{number % 3}"
            holds.append((tenant, memory.open(tenant).__enter__()))
        elif holds:
            tenant, hold = holds[number % len(holds)]
            if what == "take":
                fits = size <= min(LIMIT - memory.held, LIMIT // 2 - owned(holds, tenant))
                assert hold.try_take(size) is fits
            elif what == "give":
                hold.give(min(size, hold.size))
            else:
                hold.__exit__(None, None, None)
                holds.remove((tenant, hold))
        assert memory.held == sum(hold.size for _, hold in holds) <= LIMIT
        assert memory.holds == len(holds)
    for _, hold in holds:
        hold.__exit__(None, None, None)
    assert (memory.held, memory.holds, memory.room("tenant-0")) == (0, 0, LIMIT // 2)


def test_one_tenant_leaves_half_of_the_room_to_the_others() -> None:
    memory = Memory(LIMIT, retry_after=lambda: 7.0)
    with memory.open("flood") as flood, memory.open("light") as light:
        flood.take(LIMIT // 2)
        with pytest.raises(QueueFull) as refused:
            flood.take(1)
        assert refused.value.retry_after == 7.0
        light.take(LIMIT // 2)


def test_nothing_is_taken_after_the_end() -> None:
    memory = Memory(LIMIT)
    with memory.open("a") as hold:
        hold.take(10)
    assert not hold.try_take(1)
    assert memory.held == 0


def test_memory_is_scarce_when_half_of_the_tenants_share_is_held() -> None:
    memory = Memory(1000)
    with memory.open("a") as one, memory.open("b") as other:
        found = [(one.is_scarce, other.is_scarce)]
        for hold, size in ((one, 251), (other, 500)):
            hold.take(size)
            found.append((one.is_scarce, other.is_scarce))
    assert found == [(False, False), (True, False), (True, True)]
