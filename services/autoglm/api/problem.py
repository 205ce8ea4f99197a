"""What is wrong with a resource, as data and as an exception."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_SHOWN_CHARACTERS = 80
# What a person reads at once; a condition's message has to hold it as well.
_SHOWN_PROBLEMS = 50
_SHOWN_PATH = 200


class _Absent:
    """Marks that there is no value to show; None is a value that a document may hold."""


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong field. `path` is in the document's own words; `message` ends with the way out."""

    path: str
    message: str
    value: Any = ABSENT
    source: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is ABSENT else f" = {_short(self.value)}"
        where = f"{self.source}: " if self.source else ""
        subject = f"{self.path[:_SHOWN_PATH]}{shown}" if self.path else "the document"
        return f"{where}{subject}: {self.message}"


class InvalidSpec(ValueError):
    """A resource that can't be used; the text has one line for each problem, up to a number."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = [str(problem) for problem in problems[:_SHOWN_PROBLEMS]]
        more = len(problems) - len(lines)
        super().__init__("\n".join([*lines, *([f"and {more} more problems"] if more else [])]))
        self.problems = tuple(problems)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
