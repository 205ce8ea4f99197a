"""What a pod has counted of a call, as one short trailer, so that nobody needs to read the answer.

Written by pods, read by gateways whose data plane does not see the answer's messages. Pure.
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


def write_usage(prompt: int, completion: int, finish_reasons: Sequence[str] = ()) -> str:
    finish = f" finish={','.join(finish_reasons)}" if finish_reasons else ""
    return f"prompt={prompt} completion={completion}{finish}"


def read_usage(text: str) -> Counted | None:
    """None where it is not what `write_usage` writes."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    prompt, completion, finish = found.groups()
    return Counted(int(prompt), int(completion), tuple(finish.split(",")) if finish else ())
