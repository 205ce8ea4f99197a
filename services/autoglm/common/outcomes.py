"""How a request ended: the one label of it in metrics and logs, the same in gateway and pod."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    SERVED = "served"
    REJECTED_INVALID = "rejected_invalid"
    REJECTED_FULL = "rejected_full"
    REJECTED_UNAVAILABLE = "rejected_unavailable"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    FAILED = "failed"


_BY_HTTP_STATUS = {
    429: Outcome.REJECTED_FULL,
    499: Outcome.CANCELLED,
    501: Outcome.REJECTED_INVALID,
    502: Outcome.BROKEN,
    503: Outcome.REJECTED_UNAVAILABLE,
    504: Outcome.EXPIRED,
}


def outcome_of_status(status: int) -> Outcome:
    """Returns the outcome for the HTTP status of a response or of an error class."""
    if status < 400:
        return Outcome.SERVED
    default = Outcome.REJECTED_INVALID if status < 500 else Outcome.FAILED
    return _BY_HTTP_STATUS.get(status, default)
