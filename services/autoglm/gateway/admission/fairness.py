"""Counts the tokens served to each tenant by weight, which orders the tenants. Pure.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024):
the tenant with the smallest counter is next and is charged for its request at once; the tokens used
correct the counter when the request ends. Between two tenants that both keep requests waiting,
counters differ by at most the largest cost of one request by its tenant's weight, so service by
weight differs by at most twice that. After a pause, a tenant's counter is raised to the smallest
one of the waiting tenants: a pause earns no credit.
"""

from __future__ import annotations

from collections.abc import Callable

_SPARE = 1024
# Above this number of tenants, idle ones with the smallest counters are dropped too.
_MOST = 10_000


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
        self._served[tenant] = max(self._served.get(tenant, floor), floor)

    def charge(self, tenant: str, cost: float) -> None:
        """Charge the tenant whose turn it is, and raise the floor to its counter before that."""
        before = self.of(tenant)
        self.floor = max(self.floor, before)
        self._served[tenant] = before + cost
        if len(self._served) >= self._most:
            self._forget()

    def correct(self, tenant: str, difference: float) -> None:
        """Add the difference between the tokens used and those charged."""
        if tenant in self._served:
            self._served[tenant] = max(0.0, self._served[tenant] + difference)

    def _forget(self) -> None:
        """Drop tenants whose counter equals the floor."""
        kept = {t: s for t, s in self._served.items() if s > self.floor or self._waits(t)}
        if len(kept) > _MOST:
            ahead = sorted(kept, key=kept.__getitem__)[len(kept) // 2 :]
            kept = {t: kept[t] for t in kept if self._waits(t)} | {t: kept[t] for t in ahead}
        self._served = kept
        self._most = 2 * len(kept) + _SPARE
