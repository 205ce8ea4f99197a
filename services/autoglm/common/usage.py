"""The usage of a request as one short field: a trailer over gRPC, a header over HTTP.

Written by pods. Gateways read it where their data plane does not see the response's messages, and
where the API has no place for usage (the Open Inference Protocol). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

USAGE_TRAILER = "autoglm-usage"
_FORM = re.compile(r"prompt=(\d{1,12}) completion=(\d{1,12})(?: finish=([a-z_,]{1,200}))?")


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Numbers of tokens, and the finish reason of each choice, in lower case."""

    prompt_tokens: int
    completion_tokens: int
    finish_reasons: tuple[str, ...] = ()

    def after(self, before: TokenUsage | None) -> TokenUsage:
        """Return the tokens of both, with the finish reasons of the later one."""
        if before is None:
            return self
        prompt = before.prompt_tokens + self.prompt_tokens
        completion = before.completion_tokens + self.completion_tokens
        return TokenUsage(prompt, completion, self.finish_reasons)


def write_usage(prompt: int, completion: int, finish_reasons: Sequence[str] = ()) -> str:
    finish = f" finish={','.join(finish_reasons)}" if finish_reasons else ""
    return f"prompt={prompt} completion={completion}{finish}"


def usage_field(usage: TokenUsage) -> tuple[str, str]:
    """Return name and value of the header or trailer."""
    reasons = usage.finish_reasons
    return USAGE_TRAILER, write_usage(usage.prompt_tokens, usage.completion_tokens, reasons)


def read_usage(text: str) -> TokenUsage | None:
    """Parse the output of `write_usage`; None for any other text."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    prompt, completion, finish = found.groups()
    return TokenUsage(int(prompt), int(completion), tuple(finish.split(",")) if finish else ())
