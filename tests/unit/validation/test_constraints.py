"""What costs too much to compile is found without compiling it, in time that the text bounds."""

import time
from typing import Any

import pytest

from autoglm.validation.constraints import (
    grammar_problem,
    regex_problem,
    schema_problem,
)

PATTERNED = {f"p{i}": {"type": "string", "pattern": f"^[a-z]{{1,20}}{i}$"} for i in range(1500)}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (_object(**PATTERNED), "1500 properties"),
        (_object(**dict(list(PATTERNED.items())[:300])), "300 patterns"),
        ({"enum": [f"v{i}" for i in range(3000)]}, "3000 enum values"),
        ({"type": "array", "minItems": 10**6}, "minItems 1e+06"),
        (_object(a={"type": "array", "items": {"maxLength": 10**7}}), "maxLength 1e+07"),
        ({"anyOf": [{"enum": list(range(600))}, {"enum": list(range(600))}]}, "1200 enum values"),
        ({"pattern": "(a{1,1000}){1,1000}"}, "pattern that repeats"),
        ({"patternProperties": {"(a{1,1000}){1,1000}": {}}}, "pattern that repeats"),
        ({"anyOf": [{}] * 20_000}, "10000 values"),
    ],
)
def test_a_costly_schema_is_found(schema: dict[str, Any], problem: str) -> None:
    assert problem in str(schema_problem(schema))


@pytest.mark.parametrize(
    "schema",
    [
        True,
        _object(**{f"p{i}": {"type": "string"} for i in range(1000)}),
        {"enum": list(range(1000))},
        {"type": "string", "maxLength": 100_000},
        {"minItems": "many", "properties": 5, "enum": 7, "pattern": 3, "patternProperties": []},
        {"const": {"properties": PATTERNED}, "default": PATTERNED},
    ],
)
def test_an_affordable_schema_passes(schema: Any) -> None:
    assert schema_problem(schema) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("(a{1,1000}){1,1000}", "repeats a part up to 1e+06 times"),
        ("((a{1,1000}){1,10}b){1,1000}", "repeats a part up to 1e+07 times"),
        ("(a|(b{2000})){100}", "repeats a part up to 200000 times"),
        ("a{200000}", "repeats a part up to 200000 times"),
        ("a{1,99999999999999999999}", "repeats a part"),
        ("a{1000}{1000}", "repeats a part up to 1e+06 times"),
        ("(" * 101 + "a" + ")" * 101, "100 deep"),
        ("a" * 70_000, "70000 characters"),
    ],
)
def test_a_costly_pattern_is_found(text: str, problem: str) -> None:
    assert problem in str(regex_problem(text))
    assert problem in str(grammar_problem(text))


@pytest.mark.parametrize(
    "text",
    [
        "", "[a-z]{1,1000}", r"\({1000}\){1000}", "[({]{1000}[)}]{1000}", "a{1000}b{1000}c{1000}",
        "(a{1000})(b{1000}){50}", "((a{10}){10}){10}", "{}", "{,5}", "a{b}", ")))", "((a)",
    ],
)  # fmt: skip
def test_an_affordable_pattern_passes(text: str) -> None:
    assert regex_problem(text) is None


def test_strings_of_a_grammar_are_no_repetitions() -> None:
    assert grammar_problem('root ::= "({1000}" ("a{1000}"){1000} "b\\"("') is None


@pytest.mark.parametrize("piece", ["(a{1})", "()", "{1}", "{", "[", '"', "\\", "a", "[]", "[\\"])
def test_the_time_is_linear_in_the_text(piece: str) -> None:
    text = piece * (60_000 // len(piece))

    begin = time.process_time()
    regex_problem(text)
    grammar_problem(text)

    assert time.process_time() - begin < 0.5
