"""Generates the pages of docs/reference/ from the schemas of the CRDs. Pure.

Called by scripts/generate_crd.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from autoglm.api.crd.cel import CEL_RULES, PROFILE_RULES, CelRule
from autoglm.api.crd.definition import (
    COLUMNS,
    PROFILE_COLUMNS,
    at,
    crd,
    profile_schema,
    resource_schema,
)
from autoglm.api.deployment import API_VERSION, KIND, SHORT_NAME
from autoglm.api.profile import PROFILE_KIND, PROFILE_PLURAL

Schema = Mapping[str, Any]
_HEAD = f"""# {KIND}

<!-- Generated from services/autoglm/api by scripts/generate_crd; do not edit. -->

`{API_VERSION}`, kind `{KIND}`, short name `{SHORT_NAME}`. A manifest runs on one machine with
`autoglm up -f`, and on a cluster with `kubectl apply -f` or `autoglm deploy -c`.
[examples/](../../examples) has manifests to start from. `kubectl explain {SHORT_NAME}.spec` shows
the same descriptions as this page.
"""


_PROFILE_HEAD = f"""# {PROFILE_KIND}

<!-- Generated from services/autoglm/api by scripts/generate_crd; do not edit. -->

`{API_VERSION}`, kind `{PROFILE_KIND}`, cluster-scoped. An {KIND} names one by `spec.profile`, and
gets what it does not set itself; see [Profiles](../operator.md#profiles). `kubectl explain
autoglmprofile.spec` shows the same descriptions as this page.
"""


def reference() -> str:
    """Return the page of AutoGLMDeployments as Markdown."""
    schema, definition = resource_schema(), crd()
    longest = at(schema, "metadata.name")["maxLength"]
    categories = " ".join(definition["spec"]["names"]["categories"])
    parts = [
        _HEAD,
        "## metadata\n\nStandard object metadata. The name has lower-case letters, digits and "
        f"dashes, starts with a letter, and has at most {longest} characters, since names of "
        "children append to it.\n",
        *_tables("spec", at(schema, "spec")),
        *_rules(CEL_RULES),
        *_tables("status", at(schema, "status")),
        *_columns(
            f"Shown by `kubectl get {SHORT_NAME}`; the categories are {categories}.", COLUMNS
        ),
    ]
    return "\n".join(parts)


def profile_reference() -> str:
    """Return the page of AutoGLMProfiles as Markdown."""
    parts = [
        _PROFILE_HEAD,
        *_tables("spec", at(profile_schema(), "spec")),
        *_rules(PROFILE_RULES),
        *_columns(f"Shown by `kubectl get {PROFILE_PLURAL}`.", PROFILE_COLUMNS),
    ]
    return "\n".join(parts)


def _rules(rules: tuple[CelRule, ...]) -> list[str]:
    return [
        "## Rules",
        "",
        "The API server rejects a resource that violates one of these rules, with this message:",
        "",
        *(f"- `{rule.path or 'the resource'}`: {rule.message}." for rule in rules),
        "",
    ]


def _columns(about: str, columns: tuple[tuple[str, str, str, int], ...]) -> list[str]:
    return [
        "## Columns of kubectl get",
        "",
        about,
        "",
        "| column | from | only with `-o wide` |",
        "|---|---|---|",
        *(f"| {name} | `{path}` | {'yes' if wide else ''} |" for name, path, _, wide in columns),
        "",
    ]


def _tables(path: str, schema: Schema) -> Iterator[str]:
    """Yield a table of the fields of an object, then the tables of its nested objects."""
    depth = "##" if "." not in path else "###"
    text = schema.get("description", "")
    rows = [_row(name, field, schema) for name, field in schema["properties"].items()]
    header = "| field | type | default | |\n|---|---|---|---|"
    yield "\n".join([f"{depth} {path}", "", text, "", header, *rows, ""])
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        # The schema names only arguments that are rejected; the rules list them.
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
    kind: str = field.get("type", "anything")
    if kind == "array":
        return f"list of at most {field['maxItems']}: {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}"
    words = {"string": "text", "boolean": "true or false", "integer": "whole number"}
    text = words.get(kind, kind)
    if "maxLength" in field:
        return f"{text}, at most {field['maxLength']} characters"
    low, high = field.get("minimum"), field.get("maximum")
    if low is None:
        return text
    above = "over " if field.get("exclusiveMinimum") else ""
    return f"{text}, {above}{low:,}" + (f" to {high:,}" if high is not None else " or more")
