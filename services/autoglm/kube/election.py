"""Who may write: one of several operators, by a Lease. Pure: records and times are passed in.

A candidate trusts its own clock only: it takes the Lease after it has seen no renewal for the whole
duration. The holder begins no write later than `deadline` seconds after it *began* its last
renewal, and ends those in progress `fence` seconds after it; so the next holder never writes beside
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Terms:
    """Times of the election in seconds; all follow from one."""

    duration: float

    @property
    def deadline(self) -> float:
        """How long after a renewal the holder may begin a write."""
        return self.duration * 0.6

    @property
    def request_timeout(self) -> float:
        """How long a renewal may take."""
        return self.duration * 0.3

    @property
    def fence(self) -> float:
        """How long after a renewal writes must have ended: less than the duration, by a margin for
        clocks."""
        return self.duration * 0.9

    @property
    def period(self) -> float:
        """How often the holder renews."""
        return self.duration * 0.2

    @property
    def look(self) -> float:
        """How often a candidate looks."""
        return self.duration * 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says."""

    holder: str
    duration: float
    version: str
    """Changes with every renewal."""


class Move(Enum):
    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


class Election:
    """One candidate's view of the Lease."""

    def __init__(self, identity: str, terms: Terms) -> None:
        self.identity = identity
        self.terms = terms
        self._seen: Record | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    def move(self, record: Record | None, now: float) -> Move:
        """What to do about the Lease as it is."""
        if record is None:
            return Move.CREATE
        if self._seen != record:
            self._seen, self._seen_at = record, now
        if record.holder == self.identity:
            return Move.RENEW
        if not record.holder or now >= self._seen_at + record.duration:
            return Move.TAKE
        return Move.WAIT

    def renewed(self, began: float) -> None:
        """The Lease is ours, by a request that began at `began`."""
        self._renewed_at = began

    def lost(self) -> None:
        """Somebody else holds it, or we gave it back."""
        self._renewed_at = None

    def time_left(self, now: float) -> float:
        """Seconds in which a write may begin; 0 for those who do not lead."""
        return self._left(self.terms.deadline, now)

    def fence_left(self, now: float) -> float:
        """Seconds in which writes in progress must end, unless the Lease is renewed before."""
        return self._left(self.terms.fence, now)

    def _left(self, seconds: float, now: float) -> float:
        if self._renewed_at is None:
            return 0.0
        return max(0.0, self._renewed_at + seconds - now)
