"""How fast a model's requests end: what waiting times and Retry-After are computed from. Pure."""

from __future__ import annotations

import math

# Over how many seconds of work the rate is averaged.
_SPAN_SECONDS = 10.0
# A rate measured over less says nothing yet.
_LEAST_SECONDS = 0.2
# Weight of one request in the mean time that a place is held.
_SHARE = 0.02
_FEW = 20
# By what an estimate of one request's time is stretched, and its bound in mean times.
_MARGIN, _MOST = 1.2, 2.0


class Pace:
    """Releases a second while requests wait, and the time for which a place is held.

    The rate is that of a full house: time in which nothing waits does not count, or a quiet hour
    would look like slow pods. Before anything has waited it follows from the time that places are
    held (Little's law).
    """

    def __init__(self) -> None:
        self._released = 0.0
        self._seconds = 0.0
        self._busy_since: float | None = None
        self._ended = 0
        self._hold = 0.0
        self._hold_per_token = 0.0

    def busy(self, is_busy: bool, now: float) -> None:
        """Whether requests wait from now on."""
        if self._busy_since is not None:
            self._advance(now, self._busy_since)
        self._busy_since = now if is_busy else None

    def released(self, seconds: float, tokens: float, now: float) -> None:
        """A place was given back that a request of so many tokens had held for `seconds`."""
        if self._busy_since is not None:
            self._advance(now, self._busy_since)
            self._busy_since = now
            self._released += 1
        self._ended += 1
        share = max(_SHARE, 1 / self._ended)
        self._hold += share * (seconds - self._hold)
        self._hold_per_token += share * (seconds / max(1.0, tokens) - self._hold_per_token)

    def rate(self, in_service: int) -> float | None:
        """Releases a second with as many requests in service; None while nothing is known.

        The larger of both ways to know it: a rate from before a pause of all pods must not keep
        requests out, or nothing would ever wait and put it right.
        """
        measured = self._released / self._seconds if self._seconds >= _LEAST_SECONDS else 0.0
        follows = in_service / self._hold if self._ended and self._hold > 0 else 0.0
        return max(measured, follows) or None

    def hold(self, tokens: float) -> float:
        """How long a request of so many tokens holds a place, rather too long; 0 early on.

        Too short an estimate wastes a place until the deadline, too long a one only a wait. Most
        answers end long before `max_tokens`, so what names a huge one counts as twice the mean.
        """
        if self._ended < _FEW:
            return 0.0
        return min(_MOST * self._hold, _MARGIN * self._hold_per_token * tokens)

    def _advance(self, now: float, since: float) -> None:
        kept = math.exp(-max(0.0, now - since) / _SPAN_SECONDS)
        self._released *= kept
        self._seconds = self._seconds * kept + _SPAN_SECONDS * (1 - kept)
