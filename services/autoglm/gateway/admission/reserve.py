"""Places that a flood leaves free, so that a tenant who asks for little need not wait for one of
its answers to end. Pure; used by the queue.

Nothing is kept free while nobody needs it: only once a tenant that holds few places has asked
beside others, and for a minute after. The price is those places' part of the throughput.
"""

from __future__ import annotations

import math

_REMEMBERED_SECONDS = 60.0


class Reserve:
    """Who holds how many places, and whether some are kept free."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._wanted_until = -math.inf

    def take(self, tenant: str) -> None:
        self._held[tenant] = self._held.get(tenant, 0) + 1

    def give_back(self, tenant: str) -> None:
        left = self._held[tenant] - 1
        if left:
            self._held[tenant] = left
        else:
            del self._held[tenant]

    def info(self, tenant: str, size: int, now: float) -> bool:
        """Whether a tenant that has nothing waiting may take one of `size` places kept free."""
        if self._held.get(tenant, 0) >= size:
            return False
        if self._held.keys() - {tenant}:
            self._wanted_until = now + _REMEMBERED_SECONDS
        return True

    def is_wanted(self, now: float) -> bool:
        return now < self._wanted_until

    def kept_from(self, tenant: str, size: int, now: float) -> int:
        """How many of the places the tenant may not take."""
        if not self.is_wanted(now) or self._held.get(tenant, 0) < size:
            return 0
        return size
