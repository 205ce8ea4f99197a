"""Reserves slots during a flood, so that a tenant with few requests need not wait. Pure.

Slots are reserved only while they are needed: from when a tenant that holds few slots sends a
request while other tenants hold some, and for a minute after. The cost is their throughput.
"""

from __future__ import annotations

import math

_REMEMBERED_SECONDS = 60.0


class Reserve:
    """Counts the slots that each tenant holds and decides whether some are reserved."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._wanted_until = -math.inf

    def take(self, tenant: str) -> None:
        """Count a slot that the tenant acquires."""
        self._held[tenant] = self._held.get(tenant, 0) + 1

    def give_back(self, tenant: str) -> None:
        """Count a slot that the tenant releases."""
        left = self._held[tenant] - 1
        if left:
            self._held[tenant] = left
        else:
            del self._held[tenant]

    def request(self, tenant: str, size: int, now: float) -> bool:
        """Return whether a tenant without waiting requests may take one of `size` reserved slots.

        From then on, slots are reserved for a minute, if other tenants hold some.
        """
        if self._held.get(tenant, 0) >= size:
            return False
        if self._held.keys() - {tenant}:
            self._wanted_until = now + _REMEMBERED_SECONDS
        return True

    def is_wanted(self, now: float) -> bool:
        """Return whether slots are reserved now."""
        return now < self._wanted_until

    def withheld_from(self, tenant: str, size: int, now: float) -> int:
        """Return how many reserved slots the tenant may not take."""
        if not self.is_wanted(now) or self._held.get(tenant, 0) < size:
            return 0
        return size
