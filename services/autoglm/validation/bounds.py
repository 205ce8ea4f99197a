"""How many values a request body may have, per field and in all: one table for all APIs. Pure.

`json_scan` and `proto_scan` apply it while they read, before any object is built. A field that the
table does not name has the bound `entries`, so that a new API is bounded from the start.
docs/limits.md says why each bound is what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoglm.common.errors import InvalidRequest

MAX_GRAMMAR_BYTES = 256 * 1024
"""Length of a JSON schema, a pattern or a grammar."""
MAX_GRAMMARS_BYTES = 4 * 1024 * 1024
"""Length of all of them in one request: a parser takes them in one piece."""
MAX_STOPS = 64
MAX_STOP_TOKEN_IDS = 1024
MAX_LOGIT_BIASES = 4096
MAX_LABELS = 1000
DEFAULT_MAX_MESSAGES = 2048

_MESSAGES = ("messages", "chat.messages", "input")
_ENTRIES = {
    "stop": MAX_STOPS,
    "parameters.stop": MAX_STOPS,
    "sampling_params.stop": MAX_STOPS,
    "stop_token_ids": MAX_STOP_TOKEN_IDS,
    "sampling_params.stop_token_ids": MAX_STOP_TOKEN_IDS,
    "logit_bias": MAX_LOGIT_BIASES,
    "sampling_params.logit_bias": MAX_LOGIT_BIASES,
    "labels": MAX_LABELS,
    "tools": 1024,
    "inputs": 1024,
    "parameters": 1024,
}
# Of all lists with this place together.
_TOTALS = {
    f"{messages}[].{name}": 8192
    for messages in _MESSAGES
    for name in ("content", "parts", "tool_calls", "content[].content")
}
_BYTES = dict.fromkeys(
    (
        "response_format.json_schema.schema",
        "response_format.schema",
        "response_format.regex",
        "response_format.grammar",
        "response_format.structural_tag",
        "text.format.schema",
        "output_format.schema",
        "structured_outputs.json",
        "structured_outputs.regex",
        "structured_outputs.choice",
        "structured_outputs.grammar",
        "structured_outputs.structural_tag",
        "tools[].function.parameters",
        "tools[].parameters",
        "tools[].input_schema",
    ),
    MAX_GRAMMAR_BYTES,
)
# Lists of token ids and tensors: their numbers count for `numbers` alone.
_NUMBERS = frozenset(
    (
        "prompt",
        "prompt[]",
        "input",
        "input[]",
        "tokens",
        "token_ids",
        "inputs[].data",
        "inputs[].data[]",
        "autoglm_resume.choices[].token_ids",
        "token_ids.ids",
        "resume.choices[].token_ids",
        *(
            f"inputs[].contents.{kind}_contents"
            for kind in ("int", "int64", "uint", "uint64", "fp32", "fp64", "bool")
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Fields are written as `messages[].content`; bounds are the most that is accepted."""

    messages: int = DEFAULT_MAX_MESSAGES
    entries: int = 4096
    """Values in one list or object."""
    all_entries: int = 128 * 1024
    """Values in all lists and objects of a body; numbers in lists of ids have their own bound."""
    numbers: int = 2 * 1024 * 1024
    """Numbers in all lists of ids and tensors."""
    totals: Mapping[str, int] = field(default_factory=lambda: _TOTALS)
    bytes: Mapping[str, int] = field(default_factory=lambda: _BYTES)
    all_bytes: int = MAX_GRAMMARS_BYTES
    """Bytes of all fields that `bytes` names."""

    def entries_of(self, name: str) -> int:
        if name in ("messages", "chat.messages"):
            return self.messages
        return _ENTRIES.get(name, self.entries)

    def is_numbers(self, name: str) -> bool:
        return name in _NUMBERS


DEFAULT = Bounds()


def too_many(place: str, bound: int, what: str = "entries") -> InvalidRequest:
    where = place or "the body"
    return InvalidRequest(
        f"{where} has more than {bound} {what}; send at most {bound}", field=place
    )


def too_long(place: str, bound: int) -> InvalidRequest:
    return InvalidRequest(f"{place} has more than {bound} bytes; use at most {bound}", field=place)


def too_long_in_all(field: str, bound: int) -> InvalidRequest:
    return InvalidRequest(
        f"{field} and other schemas, patterns and grammars have more than {bound} bytes in all; "
        f"use at most {bound}",
        field=field,
    )
