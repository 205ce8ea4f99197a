"""How soon an endpoint is likely to send the first token, from what it took lately.

Predicts the work in front of a request, in prompt tokens, times the pace at which the endpoint got
through such work; and where it has no slot left, the wait for one. Paces are means that forget.
Pure data; written by events. Nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoglm.gateway.endpoints.endpoint import EndpointView

# What a request costs before its first token however short it is, in prompt tokens.
_FIXED_TOKENS = 256
# Weight of the newest observation.
_NEWEST = 0.2
# What was seen before that long ago says nothing any more, in seconds; the endpoint is tried anew.
_STALE_SECONDS = 30.0


@dataclass(slots=True)
class _Seen:
    """Of one endpoint: our unanswered prompt tokens, seconds a token of work, seconds a request."""

    pending: int = 0
    pace: float = 0.0
    seconds: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class Sending:
    """One request on its way. `work` is all that stood before its first token, in tokens."""

    url: str
    tokens: int
    work: int
    started: float
    is_answered: bool = False


def _mean(old: float, new: float) -> float:
    return old + _NEWEST * (new - old) if old else new


class Latency:
    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def fastest(self, now: float) -> float | None:
        """The best pace there is: what an endpoint is taken to have that nothing is known of."""
        paces = [s.pace for s in self._seen.values() if s.pace and now - s.at < _STALE_SECONDS]
        return min(paces, default=None)

    def predict(self, view: EndpointView, tokens: int, now: float, fastest: float) -> float:
        """Seconds to the first token of a prompt of which so many tokens are not cached."""
        seen, live = self._seen.get(view.url, _NOTHING), view.live
        is_known = seen.pace and now - seen.at < _STALE_SECONDS
        work = _FIXED_TOKENS + seen.pending + max(0, tokens)
        seconds = work * (seen.pace if is_known else fastest)
        waiting = live.others + live.in_flight + 1 - live.capacity
        return seconds if waiting <= 0 else seconds + waiting * seen.seconds / live.capacity

    def sent(self, url: str, tokens: int, now: float) -> Sending:
        seen = self._seen.setdefault(url, _Seen())
        seen.pending += tokens
        return Sending(url, tokens, _FIXED_TOKENS + seen.pending, now)

    def answered(self, sending: Sending, now: float, *, is_first_token: bool) -> None:
        """The first chunk is there, which is the first token only of a stream."""
        seen = self._settled(sending)
        if seen is not None and is_first_token:
            seen.pace = _mean(seen.pace, (now - sending.started) / sending.work)
            seen.at = now

    def ended(self, sending: Sending, now: float) -> None:
        was_answered = sending.is_answered
        seen = self._settled(sending)
        if seen is not None and was_answered:
            seen.seconds = _mean(seen.seconds, now - sending.started)

    def forget(self, url: str) -> None:
        self._seen.pop(url, None)

    def _settled(self, sending: Sending) -> _Seen | None:
        seen = self._seen.get(sending.url)
        if seen is not None and not sending.is_answered:
            seen.pending = max(0, seen.pending - sending.tokens)
        sending.is_answered = True
        return seen


_NOTHING = _Seen()
