"""Validation problems of a resource: Problem, and the exception InvalidSpec."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_SHOWN_CHARACTERS = 80
# Bounded for readers, and for the message of a condition.
_SHOWN_PROBLEMS = 50
_SHOWN_PATH = 200


class _Absent:
    """Marks a problem without a value; None is a value that a document may have."""


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Problem:
    """An invalid field: its path in the document, its value, and a message with the remedy."""

    path: str
    message: str
    value: Any = ABSENT
    source: str = ""

    def __str__(self) -> str:
        shown = ""
        if self.value is not ABSENT:
            text = json.dumps(self.value, default=str, ensure_ascii=False)
            is_short = len(text) <= _SHOWN_CHARACTERS
            shown = f" = {text if is_short else text[: _SHOWN_CHARACTERS - 1] + '…'}"
        where = f"{self.source}: " if self.source else ""
        subject = f"{self.path[:_SHOWN_PATH]}{shown}" if self.path else "the document"
        return f"{where}{subject}: {self.message}"


class InvalidSpec(ValueError):
    """Raised for an invalid resource; the text has one line a problem, at most 50."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = [str(problem) for problem in problems[:_SHOWN_PROBLEMS]]
        more = len(problems) - len(lines)
        super().__init__("\n".join([*lines, *([f"and {more} more problems"] if more else [])]))
        self.problems = tuple(problems)
