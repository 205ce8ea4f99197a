"""The memory budget of a gateway: the bytes that open requests hold, by tenant. Pure.

Counts a fixed part for each open request, its body while it is read, waits and is in flight (it is
kept for retries), and what recovery keeps of its response. A request that exceeds the budget is
rejected at once. One tenant may hold half, so that a flood of large bodies leaves room for others.
The buffers of the transports are not counted: a few for each REST connection, and incomplete gRPC
messages, which `edges.inbound_memory` bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from autoglm.common.errors import QueueFull

# The memory of an open request besides its body: its task, its context, its buffers. Measured by
# `python -m benchmarks overload`.
REQUEST_BYTES = 32 * 1024
SHARE = 2


class Memory:
    """A budget of `limit` bytes. `retry_after` returns the Retry-After of rejections in seconds."""

    def __init__(self, limit: int, retry_after: Callable[[], float] = lambda: 1.0) -> None:
        self.limit = limit
        self.share = limit // SHARE
        """The bytes that one tenant can reserve."""
        self.held = 0
        self.holds = 0
        """Requests that hold a reservation."""
        self.of_tenants: dict[str, int] = {}
        """The bytes that each tenant holds, without tenants that hold none."""
        self._retry_after = retry_after

    def room(self, tenant: str) -> int:
        """Return the bytes that the tenant can reserve now."""
        return min(self.limit - self.held, self.share - self.of_tenants.get(tenant, 0))

    def open(self, tenant: str) -> MemoryReservation:
        return MemoryReservation(self, tenant)

    def full(self, tenant: str, size: int) -> QueueFull:
        """Return the error for a reservation of `size` bytes that does not fit."""
        own = self.of_tenants.get(tenant, 0)
        return QueueFull(
            f"no room for {size} bytes: requests hold {self.held} bytes of the gateway's memory, "
            f"{own} of them this tenant's; the limits are {self.limit} and "
            f"{self.share}; try again later",
            retry_after=self._retry_after(),
        )


class MemoryReservation:
    """The memory of one request, until `close` or the end of its context."""

    __slots__ = ("_memory", "is_open", "size", "tenant")

    def __init__(self, memory: Memory, tenant: str) -> None:
        self._memory = memory
        self.tenant = tenant
        self.size = 0
        self.is_open = True
        memory.holds += 1

    def close(self) -> None:
        """Release all of it."""
        self.give(self.size)
        self.is_open = False
        self._memory.holds -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def try_take(self, size: int) -> bool:
        """Reserve `size` bytes. Returns False, and reserves nothing, if they do not fit."""
        memory, tenant = self._memory, self.tenant
        held = memory.held + size
        own = memory.of_tenants.get(tenant, 0) + size
        if held > memory.limit or own > memory.share or not self.is_open:
            return False
        memory.held = held
        if own:
            memory.of_tenants[tenant] = own
        self.size += size
        return True

    @property
    def is_scarce(self) -> bool:
        """Return whether what can do with less memory is to: half of the tenant's share is held."""
        return 2 * self._memory.room(self.tenant) < self._memory.share

    def take(self, size: int) -> None:
        """Reserve `size` bytes. Raises QueueFull if they do not fit."""
        if not self.try_take(size):
            self.check(size)

    def check(self, size: int) -> None:
        """Raise QueueFull if `size` bytes do not fit; reserves nothing."""
        if size > self._memory.room(self.tenant):
            raise self._memory.full(self.tenant, size)

    def give(self, size: int) -> None:
        """Release `size` bytes of the reservation."""
        memory, tenant = self._memory, self.tenant
        memory.held -= size
        own = memory.of_tenants.get(tenant, 0) - size
        if own:
            memory.of_tenants[tenant] = own
        else:
            memory.of_tenants.pop(tenant, None)
        self.size -= size
