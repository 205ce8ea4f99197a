"""Parses a document into a frozen resource, or into a list of all its problems.

`parse` is the entry point: the operator calls it for watched objects, the local runtime for
manifests. The gateway reads single parts with `lenient`.
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from autoglm.api.deployment import API_VERSION, KIND, AutoGLMDeployment
from autoglm.api.problem import ABSENT, InvalidSpec, Problem
from autoglm.api.rules import problems_within
from autoglm.api.schema import Part

Location = Sequence[int | str]
P = TypeVar("P", bound=Part)
# By pydantic's type of error, where pydantic's own message is in terms of Python.
_SENTENCES = {
    "value_error": "{error}",
    "string_type": "must be a string; put it in quotes",
    "string_pattern_mismatch": "must look like {pattern}",
    "int_type": "must be a whole number without quotes",
    "float_type": "must be a number without quotes",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
}


def parse(document: Any) -> AutoGLMDeployment:
    """Return the resource that a document describes. Raises InvalidSpec with all problems."""
    if not isinstance(document, Mapping):
        message = f"is not a mapping; it must be an {KIND} of {API_VERSION}"
        raise InvalidSpec([Problem("", message, document)])
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind != KIND:
        message = f"only {KIND} ({API_VERSION}) is supported; remove other documents"
        raise InvalidSpec([Problem("kind", message, kind)])
    if version != API_VERSION:
        raise InvalidSpec([Problem("apiVersion", f"must be {API_VERSION}", version)])
    problems = []
    try:
        resource = parse_json(AutoGLMDeployment, document)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [problem_of(detail) for detail in details if not _follows(detail)]
    known = {problem.path for problem in problems}
    problems += [p for p in problems_within(document) if p.path not in known]
    if problems:
        raise InvalidSpec(problems)
    return resource


def parse_json(part: type[P], document: Any) -> P:
    """Parse a document into a part. Raises ValidationError, and InvalidSpec if it is not JSON."""
    try:
        # Through JSON, as an API server receives it: tuples are lists and dates are strings.
        text = json.dumps(document, default=lambda v: dict(v) if isinstance(v, Mapping) else str(v))
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidSpec([Problem("", f"can't be written as JSON: {error}")]) from error
    return part.model_validate_json(text)


def lenient(part: type[P], document: Any) -> tuple[P, list[Problem]]:
    """Return the readable fields of a part, and the problems of the others.

    For readers that may be older than the document: a field that is null, unknown or invalid here
    does not affect the others; it has its default. Raises ValidationError if it has none.
    """
    problems: list[Problem] = []
    while True:
        try:
            return part.model_validate(document, by_alias=True, by_name=False), problems
        except ValidationError as error:
            readable = document
            for detail in error.errors(include_url=False):
                if detail["type"] != "extra_forbidden" and detail["input"] is not None:
                    problems.append(problem_of(detail, part))
                readable = _without(readable, detail["loc"])
            if readable == document:
                raise
            document = readable


def _without(document: Any, location: Location) -> dict[str, Any]:
    """Return a copy without the value at a location; an empty one if there is no mapping."""
    if not location or not isinstance(document, Mapping):
        return {}
    first, *rest = location
    return {
        key: _without(value, rest) if key == first else value
        for key, value in document.items()
        if key != first or rest
    }


def _follows(detail: ErrorDetails) -> bool:
    """Return whether a list is too short only because its items are invalid, as reported."""
    least = detail.get("ctx", {}).get("min_length", 0)
    return detail["type"] == "too_short" and len(detail["input"]) >= least


def problem_of(detail: ErrorDetails, root: type[Part] = AutoGLMDeployment) -> Problem:
    """Turn an error of pydantic into a problem with the document's field names."""
    location, kind = detail["loc"], detail["type"]
    path = written(location)
    if kind == "missing":
        return Problem(path, _with_advice("is required", location, root))
    if kind == "extra_forbidden":
        parent = _part(location[:-1], root)
        names = sorted(_fields(parent)) if parent else []
        close = difflib.get_close_matches(str(location[-1]), names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        message = f"unknown field; {hint}Valid fields: {', '.join(names)}"
        return Problem(path, message, detail["input"])
    if (form := _SENTENCES.get(kind)) is not None:
        sentence = form.format(**detail.get("ctx", {}))
    else:
        sentence = detail["msg"].replace("Input should", "must", 1)
    value = ABSENT if "[key]" in location else detail["input"]
    return Problem(path, _with_advice(sentence, location, root), value)


def _with_advice(sentence: str, location: Location, root: type[Part]) -> str:
    """Return the sentence with the description of the field at a location, or of the list there."""
    names = [step for step in location if isinstance(step, str) and step != "[key]"]
    parent = _part(names[:-1], root) if names else None
    field = _fields(parent).get(names[-1]) if parent else None
    text = " ".join((field.description or "").split()) if field else ""
    first = text.split(". ")[0].split("; ")[0].rstrip(".")
    return f"{sentence} ({first})" if first else sentence


def written(location: Location) -> str:
    """Return a location as a path of the document: `spec.model.aliases[0]`."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step != "[key]":
            text += f".{step}" if text else step
    return text


def _part(location: Location, root: type[Part]) -> type[Part] | None:
    """Return the class of the mapping at a location, None if the types have no such location."""
    part: type[Part] | None = root
    for step in location:
        if isinstance(step, int) or part is None:
            continue
        field = _fields(part).get(step)
        part = next(_parts_of(field.annotation), None) if field else None
    return part


def _fields(part: type[Part]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in part.model_fields.items()}


def _parts_of(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, Annotated):
        for argument in get_args(annotation):
            yield from _parts_of(argument)
