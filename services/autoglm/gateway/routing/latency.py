"""Predicts the time to the first token of an endpoint from recent requests.

The prediction is the queued work in prompt tokens times the endpoint's pace, and the wait for a
slot if none is free. Paces are moving averages. Pure data; reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoglm.gateway.endpoints.endpoint import EndpointView

# The fixed cost of a request before its first token, in prompt tokens.
_FIXED_TOKENS = 256
# Weight of the newest observation.
_NEWEST = 0.2
# A pace older than this, in seconds, is replaced by the fastest one, so that the endpoint is tried
# again. The mean duration of requests has no such limit.
_STALE_SECONDS = 30.0


@dataclass(slots=True)
class _Seen:
    """The observations of one endpoint.

    `pending` counts uncached prompt tokens of requests without a first chunk. `pace` is the mean of
    seconds per token, as of `at`. `seconds` is the mean duration of a request.
    """

    pending: int = 0
    pace: float = 0.0
    seconds: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class Sending:
    """One request in flight. `work` is the work queued before its first token, in tokens."""

    url: str
    tokens: int
    work: int
    started: float
    is_settled: bool = False


def _mean(old: float, new: float) -> float:
    return old + _NEWEST * (new - old) if old else new


class Latency:
    """The observed paces of all endpoints."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def fastest(self, now: float) -> float | None:
        """Return the fastest recent pace, which is assumed for endpoints without a recent pace.

        None if no endpoint has one.
        """
        paces = [s.pace for s in self._seen.values() if s.pace and now - s.at < _STALE_SECONDS]
        return min(paces, default=None)

    def predict(self, view: EndpointView, tokens: int, now: float, fastest: float) -> float:
        """Return the seconds to the first token of a prompt with `tokens` uncached tokens."""
        seen, live = self._seen.get(view.url, _NOTHING), view.live
        is_known = seen.pace and now - seen.at < _STALE_SECONDS
        work = _FIXED_TOKENS + seen.pending + max(0, tokens)
        seconds = work * (seen.pace if is_known else fastest)
        waiting = live.others + live.in_flight + 1 - live.capacity
        return seconds if waiting <= 0 else seconds + waiting * seen.seconds / live.capacity

    def sent(self, url: str, tokens: int, now: float) -> Sending:
        """Record a request with so many uncached prompt tokens."""
        seen = self._seen.setdefault(url, _Seen())
        seen.pending += tokens
        return Sending(url, tokens, _FIXED_TOKENS + seen.pending, now)

    def first_chunk(self, sending: Sending, now: float, *, is_first_token: bool) -> None:
        """Record the first chunk, which changes the pace only if it is the first token."""
        seen = self._settled(sending)
        if seen is not None and is_first_token:
            seen.pace = _mean(seen.pace, (now - sending.started) / sending.work)
            seen.at = now

    def ended(self, sending: Sending, now: float) -> None:
        """Record the end of the request."""
        had_first_chunk = sending.is_settled
        seen = self._settled(sending)
        if seen is not None and had_first_chunk:
            seen.seconds = _mean(seen.seconds, now - sending.started)

    def forget(self, url: str) -> None:
        """Drop a removed endpoint."""
        self._seen.pop(url, None)

    def _settled(self, sending: Sending) -> _Seen | None:
        seen = self._seen.get(sending.url)
        if seen is not None and not sending.is_settled:
            seen.pending = max(0, seen.pending - sending.tokens)
        sending.is_settled = True
        return seen


_NOTHING = _Seen()
