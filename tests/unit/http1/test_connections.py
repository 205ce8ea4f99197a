"""The limits of connections: whatever comes and goes, they hold, and only idle ones make room."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from autoglm.http1.connections import Connections

LIMIT, PER_ADDRESS = 6, 3
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("come", "go", "idle", "busy")),
        st.sampled_from(("a", "b", "c", "")),
        st.integers(0, 20),
    ),
    max_size=80,
)


@dataclass
class Model:
    """The open connections in the order in which they became idle, or busy."""

    address: dict[int, str] = field(default_factory=dict)
    idle: list[int] = field(default_factory=list)

    def room(self, address: str) -> tuple[str | None, int | None]:
        own = [c for c, of in self.address.items() if of == address and address]
        if len(own) >= PER_ADDRESS:
            return "limit_per_address", next((c for c in self.idle if c in own), None)
        if len(self.address) >= LIMIT:
            return "limit", next(iter(self.idle), None)
        return None, None

    def forget(self, connection: int) -> None:
        self.address.pop(connection, None)
        if connection in self.idle:
            self.idle.remove(connection)


@given(STEPS)
def test_limits_hold_and_the_longest_idle_connection_makes_room(
    steps: list[tuple[str, str, int]],
) -> None:
    connections, model, made = Connections[int](LIMIT, PER_ADDRESS), Model(), 0
    for step, address, number in steps:
        if step == "come":
            limit, idle = connections.make_room(address)
            assert (limit, idle) == model.room(address)
            if idle is not None:
                assert connections.remove(idle)
                model.forget(idle)
            if limit is None or idle is not None:
                made += 1
                connections.add(made, address)
                model.address[made] = address
                model.idle.append(made)
        elif step == "go":
            assert connections.remove(number) is (number in model.address)
            model.forget(number)
        elif step == "busy":
            connections.set_busy(number)
            if number in model.idle:
                model.idle.remove(number)
        elif number in model.address and number not in model.idle:
            connections.set_idle(number)
            model.idle.append(number)
        assert len(connections) == len(model.address) <= LIMIT
        assert list(connections) == list(model.address)


def test_nothing_is_kept_of_addresses_that_have_left() -> None:
    connections = Connections[int](LIMIT, PER_ADDRESS)
    for number in range(1000):
        connections.add(number, f"address {number}")
        connections.remove(number)

    assert not connections._clients and not connections._idle and not len(connections)
