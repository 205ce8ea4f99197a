"""docs/reference/autoglmdeployment.md, generated from the CRD's schema. Pure.

Decides how a schema reads as a document. Says nothing that the schema does not. Called by
scripts/generate_crd.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from autoglm.api.crd.cel import CEL_RULES
from autoglm.api.crd.definition import COLUMNS, at, crd, resource_schema
from autoglm.api.deployment import API_VERSION, KIND, SHORT_NAME

Schema = Mapping[str, Any]
_HEAD = f"""# {KIND}

<!-- Generated from services/autoglm/api by scripts/generate_crd; do not edit. -->

`{API_VERSION}`, kind `{KIND}`, short name `{SHORT_NAME}`: a model, served. The same file runs with
`autoglm up -f` on one machine and with `kubectl apply -f` or `autoglm deploy -c` on a cluster.
[examples/](../../examples) has some to start from. `kubectl explain {SHORT_NAME}.spec` says the
same as this page.
"""


def reference() -> str:
    """The whole page."""
    schema = resource_schema()
    parts = [_HEAD, _names(schema), *_tables("spec", at(schema, "spec"))]
    parts += [_rules(), *_tables("status", at(schema, "status")), _columns()]
    return "\n".join(parts)


def _names(schema: Schema) -> str:
    name = at(dict(schema), "metadata.name")
    return (
        "## metadata\n\nKubernetes' own. A name is lower-case letters, digits and dashes, a letter "
        f"first, and at most {name['maxLength']} characters, since children append to it.\n"
    )


def _tables(path: str, schema: Schema) -> Iterator[str]:
    """One table for the fields of an object, then those of the objects in it."""
    depth = "##" if "." not in path else "###"
    text = schema.get("description", "")
    rows = [_row(name, field, schema) for name, field in schema["properties"].items()]
    header = "| field | type | default | |\n|---|---|---|---|"
    yield "\n".join([f"{depth} {path}", "", text, "", header, *rows, ""])
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        # The arguments named in the schema are there to be refused; the rules list them.
        if "properties" in inner and not inner.get("x-kubernetes-preserve-unknown-fields"):
            yield from _tables(f"{path}.{name}{'[]' if 'items' in field else ''}", inner)


def _row(name: str, field: Schema, parent: Schema) -> str:
    is_object = "properties" in field
    default = "" if is_object or "default" not in field else f"`{json.dumps(field['default'])}`"
    if name in parent.get("required", ()):
        default = "required"
    text = field.get("description", "").replace("|", "\\|")
    return f"| `{name}` | {_type(field)} | {default} | {text} |"


def _type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "number or text"
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "anything")
    if kind == "array":
        return f"list of at most {field['maxItems']}: {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}"
    words = {"string": "text", "boolean": "true or false", "integer": "whole number"}
    return f"{words.get(kind, kind)}{_bounds(field)}"


def _bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if "maxLength" in field:
        return f", at most {field['maxLength']} characters"
    if low is None:
        return ""
    above = "over " if field.get("exclusiveMinimum") else ""
    return f", {above}{low:,}" + (f" to {high:,}" if high is not None else " or more")


def _rules() -> str:
    """What the API server checks beyond the fields, in the words of its refusals."""
    lines = [f"- `{rule.path or 'the resource'}`: {rule.message}." for rule in CEL_RULES]
    return "\n".join(
        ["## Rules", "", "What `kubectl apply` refuses, and what it says:", "", *lines, ""]
    )


def _columns() -> str:
    categories = " ".join(crd()["spec"]["names"]["categories"])
    rows = [f"| {name} | `{path}` | {'yes' if wide else ''} |" for name, path, _, wide in COLUMNS]
    return "\n".join(
        [
            "## Columns of kubectl get",
            "",
            f"`kubectl get {SHORT_NAME}`; it belongs to the categories {categories}.",
            "",
            "| column | from | only with `-o wide` |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
