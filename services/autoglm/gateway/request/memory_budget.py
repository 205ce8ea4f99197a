"""How many bytes of requests one gateway holds, and whose they are. Pure; used by the layers.

Counted are a fixed part for each open request, its body while it is read, waits and is in flight
(it is kept for retries), and what is kept of its answer. Who finds no room is refused at once. One
tenant may hold half, so that a flood of large bodies leaves room for the others.
Not counted is what the transports hold: a REST connection's few buffers, and gRPC messages that
have not arrived whole, which `arrivals` bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from autoglm.common.errors import QueueFull

# What an open request takes besides its body: its task, its context, its buffers. Measured by
# `python -m benchmarks overload`.
REQUEST_BYTES = 32 * 1024
SHARE = 2


class Memory:
    """`retry_after` says in how many seconds a request that was refused may come back."""

    def __init__(self, limit: int, retry_after: Callable[[], float] = lambda: 1.0) -> None:
        self.limit = limit
        self.held = 0
        self.holds = 0
        """Requests that hold any of it."""
        self._retry_after = retry_after
        self._of_tenants: dict[str, int] = {}

    def room(self, tenant: str) -> int:
        """Bytes that the tenant could take now."""
        own = self._of_tenants.get(tenant, 0)
        return min(self.limit - self.held, self.limit // SHARE - own)

    def open(self, tenant: str) -> MemoryReservation:
        return MemoryReservation(self, tenant)

    def add(self, tenant: str, size: int) -> None:
        """Of a hold's size; negative gives back."""
        self.held += size
        own = self._of_tenants.get(tenant, 0) + size
        if own:
            self._of_tenants[tenant] = own
        else:
            self._of_tenants.pop(tenant, None)

    def full(self, tenant: str, size: int) -> QueueFull:
        own = self._of_tenants.get(tenant, 0)
        return QueueFull(
            f"no room for {size} bytes: requests hold {self.held} bytes of the gateway's memory, "
            f"{own} of them this tenant's; the limits are {self.limit} and "
            f"{self.limit // SHARE}; try again later",
            retry_after=self._retry_after(),
        )


class MemoryReservation:
    """What one request holds: a context, whose end gives all of it back."""

    __slots__ = ("_memory", "is_open", "size", "tenant")

    def __init__(self, memory: Memory, tenant: str) -> None:
        self._memory = memory
        self.tenant = tenant
        self.size = 0
        self.is_open = False

    def __enter__(self) -> Self:
        self.is_open = True
        self._memory.holds += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give(self.size)
        self.is_open = False
        self._memory.holds -= 1

    def try_take(self, size: int) -> bool:
        """False where there is no room; then nothing is taken."""
        if not self.is_open or size > self._memory.room(self.tenant):
            return False
        self._memory.add(self.tenant, size)
        self.size += size
        return True

    def take(self, size: int) -> None:
        """Raises QueueFull where there is no room."""
        self.check(size)
        self.try_take(size)

    def check(self, size: int) -> None:
        """Raises QueueFull where so much would find no room; takes nothing."""
        if size > self._memory.room(self.tenant):
            raise self._memory.full(self.tenant, size)

    def give(self, size: int) -> None:
        """Back, of what it has taken."""
        self._memory.add(self.tenant, -size)
        self.size -= size
