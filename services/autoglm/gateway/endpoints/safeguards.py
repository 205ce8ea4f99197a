"""How a model's requests are guarded against endpoints that fail, as settings and resources say.

Data only; `recovery`, `hedging` and `health` decide by it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """`attempts` on other endpoints for one stream, 0 for none; `max_tokens` kept for it."""

    attempts: int = 3
    max_tokens: int = 32768


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """A second request after `delay_seconds`, or after the `percentile` of first chunks so far.

    Off where neither is set. `max_extra_ratio` is second requests per request, on the average.
    """

    percentile: float | None = None
    delay_seconds: float | None = None
    max_extra_ratio: float = 0.05


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    """When an endpoint that answers, but badly, is left alone for a while; 0 turns a sign off."""

    consecutive_failures: int = 5
    """Failures in a row that open its circuit."""
    failure_percent: float = 50.0
    """Failed requests of one interval, in percent."""
    latency_factor: float = 5.0
    """Mean time to the first chunk, as a multiple of the median of the model's other endpoints."""
    interval_seconds: float = 10.0
    ejection_seconds: float = 5.0
    """How long the first time; twice as long each time in a row, up to eight times."""
    max_ejection_percent: float = 50.0
    """The most of a model's endpoints that may be away; never the last one."""
    ramp_seconds: float = 10.0
    """How long an endpoint that has come back takes to get its full share."""
