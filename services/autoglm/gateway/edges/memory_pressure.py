"""Which messages are given up while the process has too little memory. Pure; used by `arrivals`.

gRPC gives us a message when it is whole, and until then tells neither its length nor how much of it
is there: what has arrived counts nowhere. What can be seen is the memory of the process. Where it
is over its limit, no message is begun, and those that have been arriving longest are given up, half
of one tenant's at a time, beginning with the tenant that has most of them. What then still is too
much is not theirs, and excused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What comes in one piece is there within milliseconds; slower ones may be given up.
PATIENCE_SECONDS = 0.1
# How much more than what is excused is too much, as a part of the limit.
_MARGIN = 8
# What may be used of a process's part; the rest is for what arrives between two looks.
_USABLE = 0.75


def process_limit(total: int, envoy: int, processes: int) -> int:
    """Bytes that one of a gateway's processes may use, where Envoy has its part of the total."""
    return int((total - envoy) / processes * _USABLE)


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A message that gRPC is receiving."""

    tenant: str
    since: float
    """On the monotonic clock."""
    may_idle: bool = False
    """One of a stream of messages, of which there may be nothing yet. Given up last."""


@dataclass(frozen=True, slots=True)
class Relief:
    """What is to be done now."""

    is_short: bool = False
    """Whether further messages have to wait."""
    give_up: Sequence[Arrival] = ()
    trim: bool = False
    """Whether freed memory is to be given back to the system, before it is looked at again."""


class MemoryPressure:
    """Decides at each look. `limit` is in bytes, as `used` is."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._excused = 0
        self._is_trimmed = False

    def look(self, used: int, arriving: Sequence[Arrival], now: float) -> Relief:
        if used <= self.limit:
            self._excused = 0
        if used <= max(self.limit, self._excused + self.limit // _MARGIN):
            self._is_trimmed = False
            return Relief()
        if not self._is_trimmed:
            self._is_trimmed = True
            return Relief(is_short=True, trim=True)
        if not arriving:
            self._excused = used
            return Relief()
        given_up = _longest(arriving, now)
        self._is_trimmed = not given_up
        return Relief(is_short=True, give_up=given_up)


def _longest(arriving: Iterable[Arrival], now: float) -> Sequence[Arrival]:
    slow = [a for a in arriving if now - a.since >= PATIENCE_SECONDS]
    of_tenants: defaultdict[str, list[Arrival]] = defaultdict(list)
    for arrival in [a for a in slow if not a.may_idle] or slow:
        of_tenants[arrival.tenant].append(arrival)
    most = max(of_tenants.values(), key=len, default=[])
    return sorted(most, key=lambda a: a.since)[: (len(most) + 1) // 2]
