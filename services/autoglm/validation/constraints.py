"""Validates output formats and tools, and bounds what they cost to compile without compiling them.

The bounds on schemas, patterns and grammars are linear in the text and catch the plain cases only:
a pod bounds the time of each compilation as well. Pure; called by `rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from autoglm.common.errors import InvalidRequest
from autoglm.validation.bounds import MAX_GRAMMAR_BYTES
from autoglm.validation.request_info import RequestInfo
from autoglm.validation.scan.json_text import depth_within

MAX_PROPERTIES = 1000
MAX_ENUM_VALUES = 1000
MAX_PATTERNS = 200
MAX_REPETITIONS = 100_000
MAX_GROUP_DEPTH = 100
MAX_SCHEMA_VALUES = 10_000
MAX_TEXT_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 64
_FORMATS = (
    "text",
    "json_object",
    "json_schema",
    "regex",
    "choice",
    "grammar",
    "structural_tag",
)
_TOOL_MODES = ("", "none", "auto", "required", "named")
_SHOWN = 60
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


def shown(value: object) -> str:
    """Format a value for an error message, shortened to 60 characters."""
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def invalid(field: str, problem: str, remedy: str) -> InvalidRequest:
    """Return the error of a field, with the way out."""
    return InvalidRequest(f"{field} {problem}; {remedy}", field=field)


def check_formats(info: RequestInfo) -> None:
    """Raise InvalidRequest for a wrong output format, or for more than one."""
    kinds = [f for f in info.formats if f.kind != "text"]
    if len(kinds) > 1 and len({f.path.partition(".")[0] for f in kinds}) == 1:
        raise invalid(kinds[1].path, f"is set beside {kinds[0].path}", "set one of them")
    problem_of = {
        "regex": regex_problem,
        "grammar": grammar_problem,
        "structural_tag": _tag_problem,
    }
    for wanted in info.formats:
        path, kind = wanted.path, wanted.kind
        if kind not in _FORMATS:
            raise invalid(path, f"is {shown(kind)}", f"use one of {', '.join(_FORMATS)}")
        if wanted.values is not None:
            if not wanted.values:
                raise invalid(path, "is empty", "give at least one choice")
            _check_size(path, sum(len(v) for v in wanted.values))
            if len(wanted.values) > MAX_ENUM_VALUES:
                problem = f"has {len(wanted.values)} choices"
                raise invalid(path, problem, f"give at most {MAX_ENUM_VALUES}")
        if kind == "json_schema":
            _check_schema(path, wanted.text)
        elif wanted.text is not None and kind in problem_of:
            if not wanted.text:
                raise invalid(path, "is empty", "give its text")
            _check_size(path, len(wanted.text))
            text = wanted.text.decode() if isinstance(wanted.text, bytes) else wanted.text
            if found := problem_of[kind](text):
                raise invalid(path, found, "split or simplify it")


def _tag_problem(text: str) -> str | None:
    try:
        return schema_problem(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        # The engine reports what is wrong with it.
        return None


def _check_schema(path: str, schema: str | bytes | None) -> None:
    if not schema or schema == b"null":
        raise invalid(path, "is missing", "give a JSON schema")
    _check_size(path, len(schema))
    try:
        within = depth_within(schema, MAX_SCHEMA_DEPTH)
        decoded = msgspec.json.decode(schema)
        is_object = isinstance(decoded, dict)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise invalid(path, f"is not JSON ({error})", "give a JSON schema") from error
    except RecursionError:
        within = is_object = False
        decoded = None
    if not within:
        raise invalid(path, "nests too deeply", f"use at most {MAX_SCHEMA_DEPTH} levels")
    if not is_object:
        raise invalid(path, f"is {shown(schema)}", "a JSON schema is an object")
    if problem := schema_problem(decoded):
        raise invalid(path, problem, "split or simplify the schema")


def _check_size(path: str, size: int) -> None:
    if size > MAX_GRAMMAR_BYTES:
        raise invalid(path, f"has {size} bytes", f"use at most {MAX_GRAMMAR_BYTES}")


def check_tools(info: RequestInfo) -> None:
    """Raise InvalidRequest for wrong tools or a wrong tool choice."""
    mode, tools = info.tool_choice.mode, info.tools
    if tools is not None and not tools:
        raise invalid("tools", "is empty", "give at least one tool or leave it out")
    if mode not in _TOOL_MODES:
        remedy = "use none, auto, required or a function"
        raise invalid("tool_choice", f"is {shown(mode)}", remedy)
    for tool in tools or ():
        if not tool.name:
            raise invalid(f"{tool.path}.name", "is empty", "give the function a name")
        if tool.parameters is not None:
            _check_schema(f"{tool.path}.parameters", tool.parameters)
    if mode in ("", "none"):
        return
    if tools is None:
        raise invalid("tool_choice", f"is {mode!r} without tools", "set tools or leave it out")
    function = info.tool_choice.function
    if mode == "named" and function not in {tool.name for tool in tools}:
        field = info.field_name("tool_choice.function")
        raise invalid(field, f"is {shown(function)}", "name one of the tools")
    constrained = next((f for f in info.formats if f.kind != "text"), None)
    if mode != "auto" and constrained:
        remedy = "a tool call has its own format: leave one of them out"
        raise invalid(constrained.path, f"is set while tool_choice is {mode}", remedy)


def schema_problem(schema: Any) -> str | None:
    """Return which bound a decoded JSON schema exceeds; None if it exceeds none."""
    properties = values = patterns = 0
    for number, node in enumerate(_values(schema)):
        if number >= MAX_SCHEMA_VALUES:
            return f"has more than {MAX_SCHEMA_VALUES} values"
        if not isinstance(node, dict):
            continue
        properties += _size(node.get("properties")) + _size(node.get("patternProperties"))
        values += _size(node.get("enum"))
        found = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
        if isinstance(node.get("patternProperties"), dict):
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
    """Return which bound a regular expression exceeds; None if it exceeds none."""
    return _problem(_REGEX, text)


def grammar_problem(text: str) -> str | None:
    """Return which bound a rule of a grammar exceeds; None if none exceeds one."""
    return _problem(_GRAMMAR, text)


def _problem(tokens: re.Pattern[str], text: str) -> str | None:
    """Return which bound is exceeded; repetitions multiply with those inside of their group."""
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
        elif mark[0] == "{" and (numbers := [n for n in mark[1:-1].split(",") if n]):
            # The most of `{3}`, `{1,3}` or `{3,}`; nine digits are over every bound.
            closed *= max(int(n[:9]) for n in numbers)
            most[-1] = max(most[-1], closed)
            if closed > MAX_REPETITIONS:
                return f"repeats a part up to {closed:.6g} times, more than {MAX_REPETITIONS}"
            continue
        closed = 1
    return None


def _values(schema: Any) -> Iterator[Any]:
    """Yield every value in the schema but data, the whole first."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, dict):
            waiting.extend(value for name, value in node.items() if name not in _DATA)
        elif isinstance(node, list):
            waiting.extend(node)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, dict | list) else 0
