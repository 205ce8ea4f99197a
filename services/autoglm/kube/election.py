"""Leader election by a Lease: the decisions. Pure: records and times are passed in.

A candidate trusts its own clock only: it acquires the Lease after it has observed no renewal for
the whole duration. The holder begins no write later than `deadline` seconds after it *began* its
last renewal, and ends those in progress `fence` seconds after it. Two holders therefore never write
at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Terms:
    """Durations of the election in seconds, all derived from the duration of the Lease."""

    duration: float

    @property
    def deadline(self) -> float:
        """Return how long after a renewal the holder may begin a write."""
        return self.duration * 0.6

    @property
    def request_timeout(self) -> float:
        """Return how long a renewal may take."""
        return self.duration * 0.3

    @property
    def fence(self) -> float:
        """Return how long after a renewal writes must have ended: less than the duration, by a
        margin for clocks."""
        return self.duration * 0.9

    @property
    def period(self) -> float:
        """Return how often the holder renews."""
        return self.duration * 0.2

    @property
    def poll_period(self) -> float:
        """Return how often a candidate reads the Lease."""
        return self.duration * 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of a Lease that the election reads."""

    holder: str
    duration: float
    version: str
    """resourceVersion, which changes with every renewal."""


class Move(Enum):
    CREATE = "create"
    ACQUIRE = "acquire"
    RENEW = "renew"
    WAIT = "wait"


class Election:
    """The state of one candidate: the Lease as it observed it last, and its own last renewal."""

    def __init__(self, identity: str, terms: Terms) -> None:
        self.identity = identity
        self.terms = terms
        self._seen: Record | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    def move(self, record: Record | None, now: float) -> Move:
        """Return what to do with the Lease as it is; None stands for no Lease."""
        if record is None:
            return Move.CREATE
        if self._seen != record:
            self._seen, self._seen_at = record, now
        if record.holder == self.identity:
            return Move.RENEW
        if not record.holder or now >= self._seen_at + record.duration:
            return Move.ACQUIRE
        return Move.WAIT

    def renewed(self, began: float) -> None:
        """Record that a request that began at `began` acquired or renewed the Lease."""
        self._renewed_at = began

    def lost(self) -> None:
        """Record that another candidate holds the Lease, or that it was released."""
        self._renewed_at = None

    def time_left(self, now: float) -> float:
        """Return the seconds in which a write may begin; 0 where this candidate does not lead."""
        return self._left(self.terms.deadline, now)

    def fence_left(self, now: float) -> float:
        """Return the seconds until writes in progress must end, unless the Lease is renewed."""
        return self._left(self.terms.fence, now)

    def _left(self, seconds: float, now: float) -> float:
        if self._renewed_at is None:
            return 0.0
        return max(0.0, self._renewed_at + seconds - now)
