"""`autoglm explain agd.spec.model.cache`: a field of AutoGLMDeployment, without a cluster. Pure.

The path is that of `kubectl explain`, and so is the layout, with defaults, values and limits added.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from autoglm.api.crd.definition import crd
from autoglm.cli.output import wrapped

Schema = Mapping[str, Any]
_WIDTH = 80
# The indents of a description's first line and of others, and of a field's further lines.
_TEXT = ("    ", "    ")
_FURTHER = "      "
# The resource's names, alone or with a path behind them: a deployment's name is neither.
_PATH = re.compile(
    r"(?:agd|autoglmdeployments?)(?:\.autoglm\.io)?((?:\.[A-Za-z][\w-]*)*)", re.IGNORECASE
)


_definition = cache(crd)


def is_path(name: str) -> bool:
    """Return whether the argument names a field, not a deployment."""
    return _PATH.fullmatch(name) is not None


def explain_field(name: str, columns: int = _WIDTH) -> str:
    """Return the description of a field and of those below it. Raises ValueError."""
    width = min(_WIDTH, columns)
    found = _PATH.fullmatch(name)
    assert found is not None, "the caller has checked it"
    definition = _definition()
    version = definition["spec"]["versions"][0]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    path = "agd"
    for part in found[1].split(".")[1:]:
        schema = _field(_inner(schema), part, path)
        path = f"{path}.{part}"
    kind = definition["spec"]["names"]["kind"]
    lines = [f"KIND:     {kind}", f"VERSION:  {definition['spec']['group']}/{version['name']}", ""]
    if path != "agd":
        field = f"FIELD: {path.rpartition('.')[2]} {_type(schema)}{_facts(schema)}"
        lines += [*wrapped(field, width, others=_FURTHER), ""]
    lines += ["DESCRIPTION:", *wrapped(schema.get("description", ""), width, *_TEXT), ""]
    properties = _inner(schema).get("properties", {})
    if properties:
        lines.append("FIELDS:")
        required = _inner(schema).get("required", ())
        for field, below in sorted(properties.items()):
            mark = " -required-" if field in required else ""
            line = f"{field}\t{_type(below)}{mark}{_facts(below)}"
            lines += wrapped(line, width, "  ", _FURTHER)
            lines += [*wrapped(below.get("description", ""), width, *_TEXT), ""]
    return "\n".join(lines).rstrip() + "\n"


def _field(schema: Schema, name: str, path: str) -> Schema:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    if name in properties:
        return properties[name]
    if not properties:
        raise ValueError(f"{path} has no fields of its own")
    near = difflib.get_close_matches(name, properties, n=1)
    which = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(properties))}"
    raise ValueError(f"{path} has no field {name!r}; {which}")


def _inner(schema: Schema) -> Schema:
    """Return the schema of an element, for a list or a map of objects."""
    if "items" in schema:
        return _inner(schema["items"])
    values = schema.get("additionalProperties")
    return _inner(values) if isinstance(values, Mapping) else schema


def _type(schema: Schema) -> str:
    return f"<{_type_name(schema)}>"


def _type_name(schema: Schema) -> str:
    if "items" in schema:
        return f"[]{_type_name(schema['items'])}"
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        return f"map[string]{_type_name(values)}"
    if schema.get("x-kubernetes-int-or-string"):
        return "IntOrString"
    kind = str(schema.get("type", "Object"))
    return "Object" if kind == "object" else kind


def _facts(schema: Schema) -> str:
    """Return a field's default, values and limits, as far as the schema has them."""
    facts = list(_facts_of(schema))
    return f"  [{'; '.join(facts)}]" if facts else ""


def _facts_of(schema: Schema) -> Iterator[str]:
    default = schema.get("default")
    if default is not None and not isinstance(default, Mapping):
        yield f"default: {str(default).lower() if isinstance(default, bool) else default}"
    if values := schema.get("enum"):
        yield f"one of {', '.join(map(str, values))}"
    if (least := schema.get("minimum")) is not None:
        yield f"{'above' if schema.get('exclusiveMinimum') else 'at least'} {least}"
    if (most := schema.get("maximum")) is not None:
        yield f"at most {most}"
