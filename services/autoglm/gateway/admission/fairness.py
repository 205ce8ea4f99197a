"""Weighted tokens served to each tenant: who is next. Pure; used by the queue.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024):
the tenant with the smallest counter goes next and pays for its request at once; what the request
really took corrects the counter when it ends. Between two tenants that both keep requests waiting,
counters differ by at most the largest cost of one request by its tenant's weight, so service by
weight differs by at most twice that. A tenant that comes back from a pause is lifted to the
smallest counter of those that wait: a pause earns no credit.
"""

from __future__ import annotations

from collections.abc import Callable

_SPARE = 1024
# Over so many, idle tenants that are ahead by little are forgotten too.
_MOST = 10_000


class Counters:
    """Tokens served by weight, for each tenant. `floor` is what a newcomer starts from at least.

    `waits` says whether a tenant has requests waiting: those are never forgotten.
    """

    def __init__(self, waits: Callable[[str], bool] = lambda tenant: False) -> None:
        self._waits = waits
        self._served: dict[str, float] = {}
        self.floor = 0.0
        self._most = _SPARE

    def __len__(self) -> int:
        return len(self._served)

    def of(self, tenant: str) -> float:
        return self._served.get(tenant, self.floor)

    def enter(self, tenant: str, least: float | None) -> None:
        """A tenant that had nothing waiting; `least` is the smallest counter of those that have."""
        floor = self.floor if least is None else least
        self._served[tenant] = max(self._served.get(tenant, floor), floor)

    def charge(self, tenant: str, cost: float) -> None:
        """The tenant's turn: it pays, and nobody starts below what it had before."""
        before = self.of(tenant)
        self.floor = max(self.floor, before)
        self._served[tenant] = before + cost
        if len(self._served) >= self._most:
            self._forget()

    def correct(self, tenant: str, difference: float) -> None:
        """What was charged was wrong by so much."""
        if tenant in self._served:
            self._served[tenant] = max(0.0, self._served[tenant] + difference)

    def _forget(self) -> None:
        """Drop those that would start from the floor anyway."""
        kept = {t: s for t, s in self._served.items() if s > self.floor or self._waits(t)}
        if len(kept) > _MOST:
            ahead = sorted(kept, key=kept.__getitem__)[len(kept) // 2 :]
            kept = {t: kept[t] for t in kept if self._waits(t)} | {t: kept[t] for t in ahead}
        self._served = kept
        self._most = 2 * len(kept) + _SPARE
