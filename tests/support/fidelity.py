"""Compares a stream of tokens with the one of an undisturbed run, up to the first difference. Pure.

The arithmetic of a GPU or CPU in bfloat16 depends on what else is in the batch, so tokens whose
logits are equal but for rounding may be chosen either way, and all that follows differs. Such a
difference is a tie: log-probabilities of both candidates on the same prefix, measured several times
on an undisturbed pod, are closer to the point where the choice turns than

- these measurements differ among themselves, and
- two steps of the logits' own number format (each candidate may be rounded the other way).

What comes after the first difference is not compared, since the prefixes differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# Log-probabilities are computed in float32; what is closer together is one number.
_FLOAT32 = 1e-4
_ROUNDINGS = 2


class Verdict(StrEnum):
    EQUAL = "equal"
    TIED = "tied"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Said:
    """A whole response: the text of all its choices, and the token ids of each."""

    text: str
    choices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a choice first has another token than the undisturbed run."""

    choice: int
    prefix: tuple[int, ...]
    expected: int
    seen: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One undisturbed measurement of both candidates, and of the likeliest ones beside them."""

    expected: float
    seen: float
    likeliest: Sequence[float]


def first_forks(expected: Said, seen: Said) -> list[Fork] | None:
    """One for each choice that differs, none for equal responses.

    None where no measurement can explain the difference: other text of the same tokens, a choice
    too many or too few, or a stream that ended where the undisturbed one had more tokens.
    """
    if len(expected.choices) != len(seen.choices):
        return None
    forks = []
    for index, (ours, theirs) in enumerate(zip(expected.choices, seen.choices, strict=True)):
        if ours == theirs:
            continue
        pairs = zip(ours, theirs, strict=False)
        at = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
        if at is None:
            return None
        forks.append(Fork(index, ours[:at], ours[at], theirs[at]))
    return None if not forks and expected.text != seen.text else forks


def is_tie(measured: Sequence[Measured], threshold: float = 0.0) -> bool:
    """Whether rounding decides; `threshold` is the gap at which the choice turns.

    It is 0 for greedy decoding without penalties.
    """
    gaps = [m.expected - m.seen for m in measured]
    tolerance = max(gaps) - min(gaps) + _ROUNDINGS * _step(measured) + _FLOAT32
    return min(gaps) - tolerance <= threshold <= max(gaps) + tolerance


def _step(measured: Sequence[Measured]) -> float:
    """The least difference of two logits here, which have steps as wide as their format's."""
    values = sorted({v for m in measured for v in (*m.likeliest, m.expected, m.seen)})
    steps = [b - a for a, b in zip(values, values[1:], strict=False) if b - a > _FLOAT32]
    return min(steps, default=0.0)


def penalty_threshold(fork: Fork, frequency_penalty: float) -> float:
    """The gap before penalties at which the choice turns after them."""
    counts = fork.prefix.count(fork.expected) - fork.prefix.count(fork.seen)
    return frequency_penalty * counts
