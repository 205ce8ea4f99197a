"""Fairness between tenants: the order of their requests, and slots for those with few. Pure.

`Counters` orders the tenants by tokens served for their weight. It is the virtual token counter of
Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): the tenant with the smallest
counter is next and is charged for its request at once; the tokens used correct the counter when the
request ends. Between two tenants that both keep requests waiting, counters differ by at most the
largest cost of one request by its tenant's weight, so service by weight differs by at most twice
that. After a pause, a tenant's counter is raised to the smallest one of the waiting tenants: a
pause earns no credit.

`Reserve` keeps slots during a flood, so that a tenant with few requests need not wait. Slots are
reserved only while they are needed: from when a tenant that holds few slots sends a request while
other tenants hold some, and for a minute after. The cost is their throughput.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_SPARE = 1024
# Above this number of tenants, idle ones with the smallest counters are dropped too.
_MOST = 10_000
_REMEMBERED_SECONDS = 60.0


class Counters:
    """Tokens served by weight, for each tenant. `floor` is the least counter of a new tenant.

    `waits` returns whether a tenant has requests waiting: its counter is never dropped.
    """

    def __init__(self, waits: Callable[[str], bool] = lambda tenant: False) -> None:
        self._waits = waits
        self._served: dict[str, float] = {}
        self.floor = 0.0
        self._most = _SPARE

    def __len__(self) -> int:
        return len(self._served)

    def of(self, tenant: str) -> float:
        """Return the tenant's counter."""
        return self._served.get(tenant, self.floor)

    def enter(self, tenant: str, least: float | None) -> None:
        """Add a tenant without waiting requests; `least` is the smallest waiting counter."""
        floor = self.floor if least is None else least
        if self._served.get(tenant, -math.inf) < floor:
            self._served[tenant] = floor

    def charge(self, tenant: str, cost: float) -> None:
        """Charge the tenant whose turn it is, and raise the floor to its counter before that."""
        served = self._served
        before = served.get(tenant, self.floor)
        if before > self.floor:
            self.floor = before
        served[tenant] = before + cost
        if len(served) >= self._most:
            self._drop_idle()

    def correct(self, tenant: str, difference: float) -> None:
        """Add the difference between the tokens used and those charged."""
        if tenant in self._served:
            self._served[tenant] = max(0.0, self._served[tenant] + difference)

    def _drop_idle(self) -> None:
        """Drop tenants whose counter equals the floor."""
        kept = {t: s for t, s in self._served.items() if s > self.floor or self._waits(t)}
        if len(kept) > _MOST:
            ahead = sorted(kept, key=kept.__getitem__)[len(kept) // 2 :]
            kept = {t: kept[t] for t in kept if self._waits(t)} | {t: kept[t] for t in ahead}
        self._served = kept
        self._most = 2 * len(kept) + _SPARE


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
        held = self._held
        if held.get(tenant, 0) >= size:
            return False
        if len(held) > (tenant in held):
            self._wanted_until = now + _REMEMBERED_SECONDS
        return True

    def is_wanted(self, now: float) -> bool:
        """Return whether slots are reserved now."""
        return now < self._wanted_until

    def withheld_from(self, tenant: str, size: int) -> int:
        """Return how many of so many reserved slots the tenant may not take."""
        return size if self._held.get(tenant, 0) >= size else 0
