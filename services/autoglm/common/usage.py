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
class Counted:
    """Tokens, and why each choice ended, in lower case."""

    prompt_tokens: int
    completion_tokens: int
    finish_reasons: tuple[str, ...] = ()

    def after(self, before: Counted | None) -> Counted:
        """The tokens of both; why the last one ended."""
        if before is None:
            return self
        prompt = before.prompt_tokens + self.prompt_tokens
        completion = before.completion_tokens + self.completion_tokens
        return Counted(prompt, completion, self.finish_reasons)


def write_usage(prompt: int, completion: int, finish_reasons: Sequence[str] = ()) -> str:
    finish = f" finish={','.join(finish_reasons)}" if finish_reasons else ""
    return f"prompt={prompt} completion={completion}{finish}"


def usage_field(counted: Counted) -> tuple[str, str]:
    """Name and value of the header or trailer."""
    reasons = counted.finish_reasons
    return USAGE_TRAILER, write_usage(counted.prompt_tokens, counted.completion_tokens, reasons)


def read_usage(text: str) -> Counted | None:
    """None where it is not what `write_usage` writes."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    prompt, completion, finish = found.groups()
    return Counted(int(prompt), int(completion), tuple(finish.split(",")) if finish else ())
