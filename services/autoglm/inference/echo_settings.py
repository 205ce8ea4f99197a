"""Settings of the echo engine: speed, cache size, and how to fail.

`Fault` is parsed from `--echo-fail KIND[=N]`, or from `<|echo KIND=N|>` in a prompt for the kinds
that concern one request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

Kind = Literal["start", "after-tokens", "hang", "die-after-requests"]
_IN_PROMPT = re.compile(r"<\|echo (after-tokens|hang)(?:=(\d+))?\|>")


@dataclass(frozen=True, slots=True)
class Fault:
    """start: the engine does not come up. after-tokens: every request fails after N tokens.
    hang: every request stops giving tokens after N. die-after-requests: the engine dies when
    request N+1 comes."""

    kind: Kind
    count: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    token_rate: float = 0.0
    """Tokens per second of each sequence; 0 means as fast as can be."""
    prefill_rate: float = 0.0
    """Prompt tokens per second; 0 means at once."""

    @property
    def token_seconds(self) -> float:
        return 1 / self.token_rate if self.token_rate else 0.0

    def prefill_seconds(self, tokens: int) -> float:
        return tokens / self.prefill_rate if self.prefill_rate else 0.0


@dataclass(frozen=True, slots=True)
class EchoSettings:
    model_name: str = "echo"
    aliases: tuple[str, ...] = ()
    max_model_len: int = 8192
    max_num_seqs: int = 64
    kv_blocks: int = 4096
    kv_events: bool = True
    rates: Rates = Rates()
    fault: Fault | None = None


def parse_fault(text: str) -> Fault:
    """Raises ValueError with what is allowed."""
    kind, equals, count = text.partition("=")
    if kind not in get_args(Kind) or (equals and not count.isdigit()):
        raise ValueError(f"{text!r} is not KIND or KIND=N with KIND of {', '.join(get_args(Kind))}")
    return Fault(cast(Kind, kind), int(count or 0))


def fault_in(prompt: str) -> Fault | None:
    found = _IN_PROMPT.search(prompt)
    return Fault(cast(Kind, found[1]), int(found[2] or 0)) if found else None
