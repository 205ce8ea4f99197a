"""Properties of the queue that hold after any order of events. Time is passed in."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autoglm.gateway.admission.capacity import Capacity
from autoglm.gateway.admission.lane import State, Waiter
from autoglm.gateway.admission.queue import Bounds, Queue, Verdict

BOUNDS = Bounds(requests=8, size=1000, wait_seconds=30.0, ageing_seconds=5.0)


class Anything(RuleBasedStateMachine):
    """Any order of events keeps bounds, loses no slot, and leaves no slot unused."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = Queue("glm", BOUNDS)
        self.queue.resize(Capacity(3, 120, 1), 0.0)
        self.inside: list[Waiter] = []

    def take(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            expected = State.ADMITTED if verdict.error is None else State.GONE
            assert verdict.waiter.state is expected
        self.inside = [one for one in self.inside if one.state is not State.GONE]

    @rule(
        tenant=st.sampled_from("abcd"),
        tokens=st.integers(1, 150),
        size=st.integers(0, 400),
        priority=st.integers(-20, 20),
        patience=st.floats(0.1, 60),
    )
    def arrive(self, tenant: str, tokens: int, size: int, priority: int, patience: float) -> None:
        weight = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.0}[tenant]
        one = Waiter(tenant, tokens, size, self.now + patience, priority, weight)
        self.inside.append(one)
        self.take(self.queue.arrive(one, self.now))

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), used=st.none() | st.integers(0, 300), twice=st.booleans())
    def leave(self, data: st.DataObject, used: int | None, twice: bool) -> None:
        one = data.draw(st.sampled_from(self.inside))
        self.take(self.queue.leave(one, self.now, used))
        if twice:
            admitted = self.queue.admitted
            self.take(self.queue.leave(one, self.now, used))
            assert self.queue.admitted == admitted

    @rule(requests=st.integers(0, 6), tokens=st.integers(0, 300), reserved=st.integers(0, 3))
    def resize(self, requests: int, tokens: int, reserved: int) -> None:
        self.take(self.queue.resize(Capacity(requests, tokens, reserved), self.now))

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.queue.expire(self.now))

    @invariant()
    def counts_are_those_of_the_requests(self) -> None:
        waiting = [one for one in self.inside if one.state is State.WAITING]
        admitted = [one for one in self.inside if one.state is State.ADMITTED]
        assert len(waiting) + len(admitted) == len(self.inside)
        assert (self.queue.waiting, self.queue.admitted) == (len(waiting), len(admitted))
        assert self.queue.waiting_bytes == sum(one.size for one in waiting)
        assert self.queue.tokens == pytest.approx(sum(one.tokens for one in admitted))

    @invariant()
    def bounds_hold(self) -> None:
        assert self.queue.waiting <= BOUNDS.requests
        assert self.queue.waiting_bytes <= BOUNDS.size

    @invariant()
    def no_request_waits_beside_a_free_slot(self) -> None:
        capacity = self.queue.capacity
        free = capacity.without(capacity.reserved).requests - self.queue.admitted
        if self.queue.waiting and free > 0:
            assert self.queue.is_token_bound and self.queue.admitted


TestAnything = Anything.TestCase
