"""Decides which messages are given up under memory pressure. Pure; used by `inbound_memory`.

gRPC delivers a message as a whole, and before that reports neither its length nor what has arrived,
so partial messages are in no memory budget. Only the memory of the process shows them. Over its
limit no message is begun, and those that have been arriving longest are given up, half of one
tenant's at a time, beginning with the tenant that has the most. Memory that is still in use after
that belongs to something else, and is excused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# A message without pauses arrives within milliseconds; slower ones may be given up.
PATIENCE_SECONDS = 0.1
# The divisor of the limit that gives the margin above what is excused.
_MARGIN = 8
# The usable part of a process's memory; the rest is for what arrives between two polls.
_USABLE = 0.75


def process_limit(total: int, envoy: int, processes: int) -> int:
    """Returns the bytes that one of a gateway's processes may use, after Envoy's part."""
    return int((total - envoy) / processes * _USABLE)


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A message that gRPC is receiving."""

    tenant: str
    since: float
    """On the monotonic clock."""
    may_idle: bool = False
    """Whether it is one of a stream of messages, which may be idle. Given up last."""


@dataclass(frozen=True, slots=True)
class Relief:
    """What relieves the pressure now."""

    is_short: bool = False
    """Whether further messages have to wait."""
    give_up: Sequence[Arrival] = ()
    trim: bool = False
    """Whether to return freed memory to the system before the next poll."""


class MemoryPressure:
    """Decides at each poll. `limit` is in bytes, as `used` is."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._excused = 0
        self._is_trimmed = False

    def relieve(self, used: int, arriving: Sequence[Arrival], now: float) -> Relief:
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
