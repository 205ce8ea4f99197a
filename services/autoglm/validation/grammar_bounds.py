"""Bounds on what a schema, pattern or grammar costs to compile, found without compiling it.

Linear in the text. Decides nothing about validity, and catches the plain cases only: a pod bounds
the time of each compilation as well. Pure; called by `rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_PROPERTIES = 1000
MAX_ENUM_VALUES = 1000
MAX_PATTERNS = 200
MAX_REPETITIONS = 100_000
MAX_GROUP_DEPTH = 100
MAX_SCHEMA_VALUES = 10_000
MAX_TEXT_BYTES = 64 * 1024
_COUNTS = (
    *("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)
# Data, not schemas.
_DATA = frozenset(("enum", "const", "default", "examples"))
# An escaped character, a class of characters, a repetition, a parenthesis, or other characters.
# What is not closed runs to the end, so that no character is read twice.
_PARTS = r"\\.?|\[\^?\]?(?:\\.|[^\]\\])*(?:\]|\\?\Z)|\{\d*,?\d*\}|[(){]"
_REGEX = re.compile(_PARTS + r"|[^\\\[(){]+", re.DOTALL)
# The same with the strings of a grammar in between.
_GRAMMAR = re.compile(r'"(?:\\.|[^"\\])*(?:"|\\?\Z)|' + _PARTS + r'|[^\\\[(){"]+', re.DOTALL)


def schema_problem(schema: Any) -> str | None:
    """What is too much in a decoded JSON schema; None where nothing is."""
    properties = values = patterns = 0
    for number, node in enumerate(_values(schema)):
        if number >= MAX_SCHEMA_VALUES:
            return f"has more than {MAX_SCHEMA_VALUES} values"
        if not isinstance(node, Mapping):
            continue
        properties += _size(node.get("properties")) + _size(node.get("patternProperties"))
        values += _size(node.get("enum"))
        found = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
        if isinstance(node.get("patternProperties"), Mapping):
            found += node["patternProperties"]
        patterns += len(found)
        for name in _COUNTS:
            count = node.get(name)
            if isinstance(count, int | float) and count > MAX_REPETITIONS:
                return f"has {name} {count:.6g}, more than {MAX_REPETITIONS}"
        if problem := next(filter(None, map(regex_problem, found)), None):
            return f"has a pattern that {problem}"
    for name, count, most in (
        ("properties", properties, MAX_PROPERTIES),
        ("enum values", values, MAX_ENUM_VALUES),
        ("patterns", patterns, MAX_PATTERNS),
    ):
        if count > most:
            return f"has {count} {name}, more than {most}"
    return None


def regex_problem(text: str) -> str | None:
    """What is too much in a regular expression."""
    return _problem(_REGEX, text)


def grammar_problem(text: str) -> str | None:
    """What is too much in a grammar, rule by rule."""
    return _problem(_GRAMMAR, text)


def _problem(tokens: re.Pattern[str], text: str) -> str | None:
    """Repetitions multiply with those inside of the group that they repeat."""
    if len(text) > MAX_TEXT_BYTES:
        return f"has {len(text)} characters, more than {MAX_TEXT_BYTES}"
    most = [1]
    closed = 1
    for token in tokens.finditer(text):
        mark = token[0]
        if mark == "(":
            most.append(1)
            if len(most) > MAX_GROUP_DEPTH:
                return f"nests groups more than {MAX_GROUP_DEPTH} deep"
        elif mark == ")" and len(most) > 1:
            closed = most.pop()
            most[-1] = max(most[-1], closed)
            continue
        elif mark[0] == "{" and (count := _repetitions(mark)) is not None:
            closed *= count
            most[-1] = max(most[-1], closed)
            if closed > MAX_REPETITIONS:
                return f"repeats a part up to {closed:.6g} times, more than {MAX_REPETITIONS}"
            continue
        closed = 1
    return None


def _repetitions(mark: str) -> int | None:
    """The most of `{3}`, `{1,3}` or `{3,}`; None for braces without a number."""
    numbers = [n for n in mark[1:-1].split(",") if n]
    # More digits than any bound of ours has.
    return max(int(n[:9]) for n in numbers) if numbers else None


def _values(schema: Any) -> Iterator[Any]:
    """Every value in it but data, the whole first."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Mapping):
            waiting.extend(value for name, value in node.items() if name not in _DATA)
        elif isinstance(node, list):
            waiting.extend(node)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Mapping | list) else 0
