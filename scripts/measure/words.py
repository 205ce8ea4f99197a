"""Finds words that `docs/glossary.md` replaces, and the sentences that may keep them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from scripts.measure import prose
from scripts.measure.prose import Kind, Prose

# Between the words of a phrase a line may end, and the next begin as a comment.
_GAP = r"\s+(?:(?:\#|//|\*)+\s*)?"
_PHRASES = (
    r"ask(?:s|ed|ing)?",
    r"tell(?:s|ing)?",
    "told",
    r"answer(?:s|ed|ing)?",
    "anew",
    "whoever",
    "nobody",
    "somebody",
    "everybody",
    r"look(?:s|ed)? at",
    r"go(?:es)? on",
    "went on",
    "left alone",
    "cannot be had",
    "is no known",
)
BANNED = re.compile(rf"\b(?:{'|'.join(_PHRASES)})\b".replace(" ", _GAP), re.IGNORECASE)

# By the first letters of what was found.
INSTEAD = {
    "ask": "request, query, call, require",
    "tell": "report, notify, publish, log, show",
    "told": "reported, notified, configured, given",
    "answer": "response, respond; return; result",
    "anew": "again; retry, re-read, reload",
    "whoever": "the caller, the client",
    "nobody": "no client, no caller, none",
    "somebody": "another controller, a caller, a user",
    "everybody": "every caller, all clients",
    "look": "read, poll, check, reconcile",
    "go": "resume, continue, proceed",
    "went": "resumed, continued, proceeded",
    "left": "ejected (outlier detection)",
    "cannot": "is not available",
    "is": "is unknown, is not a known",
    # Openings of docstrings.
    **dict.fromkeys(("wh", "how", "of", "the", "a"), "begin with a verb, as in 'Return ...'"),
}


@dataclass(frozen=True, slots=True)
class Allowed:
    """Matches inside of `phrase` (a regular expression) in files that fit `path` are allowed."""

    path: str
    reason: str
    phrase: str = ""

    def covers(self, path: str) -> bool:
        return fnmatchcase(path, self.path)


@dataclass(frozen=True, slots=True)
class Found:
    path: str
    line: int
    word: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r} ({self.kind}): {instead(self.word)}"


def instead(word: str) -> str:
    return next((term for start, term in INSTEAD.items() if word.startswith(start)), "")


def pieces(path: str, text: str) -> Iterable[Prose]:
    is_python = PurePosixPath(path).suffix == ".py" or text.startswith("#!/usr/bin/env python")
    return prose.of_python(text) if is_python else prose.of_text(text)


def find(path: str, text: str, allowed: Sequence[Allowed] = ()) -> Iterator[Found]:
    if not BANNED.search(re.sub("[_]", " ", text)):
        return
    rules = [rule for rule in allowed if rule.covers(path)]
    if any(not rule.phrase for rule in rules):
        return
    lines = text.splitlines()
    for piece in pieces(path, text):
        used: dict[str, int] = {}
        kept = [m.span() for rule in rules for m in re.finditer(rule.phrase, piece.text)]
        for match in BANNED.finditer(piece.text):
            line = _line(piece, match, lines, used)
            if not any(start <= match.start() and match.end() <= end for start, end in kept):
                yield Found(path, line, _plain(match.group()), piece.kind)


def _plain(word: str) -> str:
    return re.sub(_GAP, " ", word).lower()


def _line(piece: Prose, match: re.Match[str], lines: Sequence[str], used: dict[str, int]) -> int:
    """Where it stands. Adjacent strings are one piece, whose own lines do not count."""
    guess = piece.line + piece.text.count("\n", 0, match.start())
    word = match.group().split()[0]
    if guess <= len(lines) and word in lines[guess - 1]:
        return guess
    inside = range(piece.line, min(piece.last_line, len(lines)) + 1)
    at = [number for number in inside if re.search(rf"\b{re.escape(word)}\b", lines[number - 1])]
    turn = used.get(word, 0)
    used[word] = turn + 1
    return at[min(turn, len(at) - 1)] if at else piece.line
