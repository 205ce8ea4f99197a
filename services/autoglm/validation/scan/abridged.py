"""A request body whose long values are cut, so that decoding it takes little time. Pure.

`json_scan` and `proto_scan` make it from bodies that are large; extractors read it as any body.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

KEPT_TEXT_BYTES = 1024 * 1024
"""Text at the start of a body that is never cut: as much as names of prefixes are made of."""
KEPT_NUMBERS = 64 * 1024
"""Numbers of lists at the start of a body that are never cut."""
KEPT_IDS = 256 * 1024
"""Token ids of one list that are kept beside the body, for names of prefixes."""
_MAX_ID = 2**32 - 1


@dataclass(slots=True)
class Numbers:
    """The rest of a list of numbers. `stand_ins` zeros at the list's end stand for it."""

    count: int = 0
    stand_ins: int = 0
    low: float = 0
    high: float = 0
    is_whole: bool = True
    ids: array[int] = field(default_factory=lambda: array("I"))
    """The first of them, where all are in the range of ids."""

    def add(self, values: Sequence[float], *, is_whole: bool) -> None:
        low, high = min(values), max(values)
        self.low, self.high = (
            (min(low, self.low), max(high, self.high)) if self.count else (low, high)
        )
        self.count += len(values)
        self.stand_ins += 1
        self.is_whole = self.is_whole and is_whole
        if self.is_whole and self.low >= 0 and self.high <= _MAX_ID and len(self.ids) < KEPT_IDS:
            self.ids.extend(values)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Cut:
    """The parts that were cut.

    Keys of `text` are fields as `messages[].content`, those of `numbers` places as `prompt[3]`;
    values of `text` are bytes of UTF-8.
    """

    text: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, Numbers] = field(default_factory=dict)


NOTHING = Cut()


class Abridged(bytes):
    """A body that is as valid as the one it was made from, and `cut`, what it lacks."""

    cut: Cut = NOTHING
    whole_size: int = 0
    """Bytes of the body that it was made from."""
    entries: int = 0
    """Values in lists and objects, numbers in lists aside."""

    @classmethod
    def of(
        cls, parts: Sequence[bytes | memoryview], cut: Cut, entries: int, whole_size: int
    ) -> Abridged:
        made = cls(b"".join(parts))
        made.cut, made.entries, made.whole_size = cut, entries, whole_size
        return made


def cut_of(body: bytes) -> Cut:
    return body.cut if isinstance(body, Abridged) else NOTHING


def whole_size(body: bytes) -> int:
    return body.whole_size if isinstance(body, Abridged) else len(body)
