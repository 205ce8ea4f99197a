"""Computes the figures of a load test from the times of its requests. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, log10
from typing import Any, Final

PERCENTILES: Final = (50, 90, 99)
NAMES: Final = {
    "ttft": "time to first token",
    "itl": "time between tokens",
    "tpot": "time per output token after the first",
    "e2e": "whole request",
}
"""The distributions, in milliseconds."""
_BARS, _WIDTH = 12, 40


@dataclass(slots=True)
class Outcome:
    """A request. Times are of a monotonic clock, in seconds."""

    started: float
    ended: float = 0.0
    chunks: list[float] = field(default_factory=list)
    """Arrivals of output; one for the whole response where it is not streamed."""
    input_tokens: int = 0
    output_tokens: int = 0
    """As the server counts them; chunks where it does not."""
    error: str = ""
    """Why it failed, in few words; empty if it did not."""
    is_streamed: bool = True


def figures(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Return rates, errors and distributions for machines; see docs/cli.md for the names."""
    good = [each for each in outcomes if not each.error]
    per_second = 1 / seconds if seconds > 0 else 0.0
    return {
        "seconds": round(seconds, 3),
        "requests": {"completed": len(good), "failed": len(outcomes) - len(good)},
        "errors": dict(Counter(each.error for each in outcomes if each.error).most_common()),
        "requestsPerSecond": round(len(good) * per_second, 3),
        "inputTokensPerSecond": round(sum(o.input_tokens for o in good) * per_second, 1),
        "outputTokensPerSecond": round(sum(o.output_tokens for o in good) * per_second, 1),
        "milliseconds": {name: spread(values) for name, values in samples(good).items() if values},
    }


def samples(good: Sequence[Outcome]) -> dict[str, list[float]]:
    """Return the samples of each distribution, in milliseconds, in order of size."""
    streamed = [each for each in good if each.is_streamed and each.chunks]
    found = {
        "ttft": [each.chunks[0] - each.started for each in streamed],
        "itl": [b - a for o in streamed for a, b in zip(o.chunks, o.chunks[1:], strict=False)],
        "tpot": [
            (each.chunks[-1] - each.chunks[0]) / (each.output_tokens - 1)
            for each in streamed
            if each.output_tokens > 1
        ],
        "e2e": [each.ended - each.started for each in good],
    }
    return {name: sorted(value * 1000 for value in values) for name, values in found.items()}


def spread(ordered: Sequence[float]) -> dict[str, float]:
    """Return mean, percentiles (nearest rank) and maximum of one or more sorted values."""
    ranks = {f"p{p}": ordered[max(0, ceil(p / 100 * len(ordered)) - 1)] for p in PERCENTILES}
    found = {"mean": sum(ordered) / len(ordered), **ranks, "max": ordered[-1]}
    return {name: round(value, 3) for name, value in found.items()}


def histogram(ordered: Sequence[float]) -> list[str]:
    """Return lines with bars of sorted positive values, in classes of equal ratio."""
    low, high = max(ordered[0], 1e-3), max(ordered[-1], 1e-3)
    ratio = log10(high / low) / _BARS if high > low else 1.0
    counts = Counter(min(_BARS - 1, int(log10(max(value, low) / low) / ratio)) for value in ordered)
    most, last = max(counts.values()), max(counts)
    return [
        f"{low * 10 ** (ratio * (index + 1)):>10.1f} ms  {counts[index]:>7}  "
        f"{'#' * ceil(_WIDTH * counts[index] / most)}".rstrip()
        for index in range(last + 1)
    ]
