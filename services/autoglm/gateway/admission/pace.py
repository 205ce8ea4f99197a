"""Measures how fast a model's requests end, for waiting times and Retry-After. Pure."""

from __future__ import annotations

import math

# The seconds of saturated time over which the rate is averaged.
_SPAN_SECONDS = 10.0
# The least measured time for a rate.
_LEAST_SECONDS = 0.2
# The weight of one request in the mean time that a slot is held.
_SHARE = 0.02
_FEW = 20
# The margin on an estimate of one request's time, and its bound in mean times.
_MARGIN, _MOST = 1.2, 2.0


class Pace:
    """The rate of released slots while requests wait, and the time that a slot is held.

    Only time in which requests wait is measured; otherwise an idle hour would count as slow pods.
    Before any request has waited, the rate follows from the time that slots are held (Little's
    law).
    """

    def __init__(self) -> None:
        self._released = 0.0
        self._seconds = 0.0
        self._busy_since: float | None = None
        self._ended = 0
        self._hold = 0.0
        self._hold_per_token = 0.0

    def busy(self, is_busy: bool, now: float) -> None:
        """Record whether requests wait from now on."""
        if self._busy_since is not None:
            self._advance(now, self._busy_since)
        self._busy_since = now if is_busy else None

    def released(self, seconds: float, tokens: float, now: float) -> None:
        """Record a slot that a request of so many tokens held for `seconds`."""
        if self._busy_since is not None:
            self._advance(now, self._busy_since)
            self._busy_since = now
            self._released += 1
        self._ended += 1
        share = max(_SHARE, 1 / self._ended)
        self._hold += share * (seconds - self._hold)
        self._hold_per_token += share * (seconds / max(1.0, tokens) - self._hold_per_token)

    def rate(self, in_service: int) -> float | None:
        """Return the slots released a second with so many requests in service; None if unknown.

        Returns the larger of the measured and the derived rate: a rate measured while all pods
        stalled would otherwise reject requests, so that none would wait and correct it.
        """
        measured = self._released / self._seconds if self._seconds >= _LEAST_SECONDS else 0.0
        follows = in_service / self._hold if self._ended and self._hold > 0 else 0.0
        return max(measured, follows) or None

    def hold(self, tokens: float) -> float:
        """Estimate the seconds that a request of so many tokens holds a slot; 0 while unknown.

        The estimate errs on the long side: one that is too short wastes a slot until the deadline,
        one that is too long only a wait. Most responses end long before `max_tokens`, so the
        estimate is at most twice the mean.
        """
        if self._ended < _FEW:
            return 0.0
        return min(_MOST * self._hold, _MARGIN * self._hold_per_token * tokens)

    def _advance(self, now: float, since: float) -> None:
        kept = math.exp(-max(0.0, now - since) / _SPAN_SECONDS)
        self._released *= kept
        self._seconds = self._seconds * kept + _SPAN_SECONDS * (1 - kept)
