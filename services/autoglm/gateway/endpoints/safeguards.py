"""Policies of recovery, hedging and outlier detection, from settings and resources. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """`attempts` to resume one stream on other endpoints, 0 for none; keeps `max_tokens` for it."""

    attempts: int = 3
    max_tokens: int = 32768


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """A hedge is sent after `delay_seconds`, or after the `percentile` of times to first chunk.

    Off if neither is set. `max_extra_ratio` is the most hedges per request, on average.
    """

    percentile: float | None = None
    delay_seconds: float | None = None
    max_extra_ratio: float = 0.05


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    """When outlier detection ejects an endpoint; 0 disables a criterion."""

    consecutive_failures: int = 5
    """Consecutive failures that eject it."""
    failure_percent: float = 50.0
    """Failed requests of one interval that eject it, in percent."""
    latency_factor: float = 5.0
    """Mean time to the first chunk, as a multiple of the median of the model's other endpoints."""
    interval_seconds: float = 10.0
    ejection_seconds: float = 5.0
    """Duration of the first ejection; doubled each time in a row, up to eight times."""
    max_ejection_percent: float = 50.0
    """The most endpoints of a model that may be ejected; never the last one."""
    ramp_seconds: float = 10.0
    """Time until a readmitted endpoint gets its full share."""
