"""Reads what an engine counted of a response, for the span and for gateways. Pure.

Called by `servicers` and by the Open Inference Protocol, whose messages have no usage.
"""

from __future__ import annotations

from typing import Any

from autoglm import v1
from autoglm.common.usage import Counted


def counted_of(message: Any) -> Counted | None:
    """Of a response or of the last chunk of a stream; None where the message has no usage."""
    usage = getattr(message, "usage", None)
    if usage is None:
        return None
    return Counted(usage.prompt_tokens, usage.completion_tokens, _reasons(message))


def _reasons(message: Any) -> tuple[str, ...]:
    """Why each choice ended, in lower case, as far as it says."""
    parts = getattr(message, "completions", None) or getattr(message, "choices", None) or (message,)
    given = (getattr(part, "finish_reason", 0) for part in parts)
    names = (v1.FinishReason.Name(reason) for reason in given if reason)
    return tuple(name.removeprefix("FINISH_REASON_").lower() for name in names)
