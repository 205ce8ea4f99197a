"""The engine's own ids of a request. Pure; called by `engine` and `labels`."""

from __future__ import annotations

import re
from collections.abc import Iterable


def predict_id(request_id: str, index: int) -> str:
    """Return the id of one engine request of those for label log-probabilities."""
    return f"predict-{request_id}-{index}"


def stream_ids(request_id: str) -> tuple[str, str]:
    """Return the engine's ids that a request to generate or to chat may have."""
    return request_id, f"chatcmpl-{request_id}"


def engine_ids(request_id: str, live: Iterable[str]) -> list[str]:
    """Return the engine's ids of a request; vLLM's classes put marks around x-request-id."""
    name = re.escape(request_id)
    ours = re.compile(rf"{name}|chatcmpl-{name}(_\d+)?|(cmpl|predict|embd)-{name}-\d+")
    return [i for i in live if ours.fullmatch(i)]
