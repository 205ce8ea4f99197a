"""Generates the smallest output that fits the response format of a request.

Covers what is cheap: any JSON object, plain JSON schemas, and literal choices. Anything else is
Unimplemented; only a real engine follows grammars.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoglm import v1
from autoglm.common import errors
from autoglm.simulator.unfollowed import not_followed

_SIMPLEST: Mapping[str, object] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "null": None,
    "array": [],
}


def shaped(response_format: v1.ResponseFormat, text: str) -> str:
    """Return `text`, or the smallest output that fits where a format is set."""
    kind = response_format.WhichOneof("format")
    if kind is None or (kind == "json_object" and not response_format.json_object):
        return text
    if kind == "json_object":
        return "{}"
    if kind == "json_schema":
        return json.dumps(minimal(_parsed(response_format.json_schema.schema)))
    if kind == "choice" and response_format.choice.values:
        values = response_format.choice.values
        return next((v for v in values if v in text), values[0])
    raise not_followed(f"response_format.{kind}")


def minimal(schema: Mapping[str, Any]) -> object:
    """Return the smallest JSON value that fits a plain schema."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: minimal(properties.get(name, {})) for name in schema.get("required", [])}
    bounded = any(k.startswith("min") or k == "pattern" for k in schema)
    if isinstance(kind, str) and kind in _SIMPLEST and not bounded:
        return _SIMPLEST[kind]
    message = "the echo engine fills only plain JSON schemas"
    raise errors.Unimplemented(message, field="response_format.json_schema.schema")


def _parsed(text: str) -> Mapping[str, Any]:
    field = "response_format.json_schema.schema"
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise errors.InvalidRequest(f"the schema is not JSON: {error}", field=field) from error
    if not isinstance(schema, dict):
        raise errors.InvalidRequest("the schema is not a JSON object", field=field)
    return schema
