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
