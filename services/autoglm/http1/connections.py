"""The open connections of a server: how many there may be, and which is closed for a newcomer.

A connection over a limit is accepted where an idle one can be closed for it: over the limit of its
address, the one of that address that has been idle longest; over the limit of the server, the one
that has been idle longest of all. So connections that only wait keep no other client out. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

C = TypeVar("C", bound=Hashable)
Limit = Literal["limit", "limit_per_address"]


@dataclass(eq=False, slots=True)
class _Client(Generic[C]):
    """The connections of one address."""

    address: str
    count: int = 0
    idle: dict[C, None] = field(default_factory=dict)


class Connections(Generic[C]):
    """Connections by the address that counts as one client; longest idle first.

    Those without an address count against `limit` alone.
    """

    def __init__(self, limit: int, per_address: int) -> None:
        self._limit, self._per_address = limit, per_address
        self._open: dict[C, _Client[C]] = {}
        self._clients: dict[str, _Client[C]] = {}
        self._idle: dict[C, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[C]:
        return iter(self._open)

    def make_room(self, address: str) -> tuple[Limit | None, C | None]:
        """Return the limit that one more connection exceeds, and the idle one to close for it."""
        client = self._clients.get(address) if address else None
        if client is not None and client.count >= self._per_address:
            return "limit_per_address", next(iter(client.idle), None)
        if len(self._open) >= self._limit:
            return "limit", next(iter(self._idle), None)
        return None, None

    def add(self, connection: C, address: str) -> None:
        """Count a connection, which is idle."""
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = _Client(address)
        client.count += 1
        self._open[connection] = client
        self.set_idle(connection)

    def remove(self, connection: C) -> bool:
        """Forget a connection, and return whether it was counted."""
        client = self._open.get(connection)
        if client is None:
            return False
        self.set_busy(connection)
        del self._open[connection]
        client.count -= 1
        if not client.count:
            del self._clients[client.address]
        return True

    def set_idle(self, connection: C) -> None:
        """Note that the connection waits for its next request from now on."""
        client = self._open.get(connection)
        if client is not None:
            self._idle[connection] = client.idle[connection] = None

    def set_busy(self, connection: C) -> None:
        """Note that a request has begun."""
        client = self._open.get(connection)
        if client is not None:
            self._idle.pop(connection, None)
            client.idle.pop(connection, None)
