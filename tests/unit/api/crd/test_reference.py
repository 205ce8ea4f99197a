"""The page names every field, rule and column, and nothing breaks its tables."""

from __future__ import annotations

import re

from autoglm.api.crd.cel import CEL_RULES
from autoglm.api.crd.definition import COLUMNS, resource_schema
from autoglm.api.crd.reference import reference

PAGE = reference()


def fields(schema: dict[str, object]) -> set[str]:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return set()
    inner = schema.get("items", schema)
    members = inner.get("properties", {}) if isinstance(inner, dict) else {}
    return set(members).union(*(fields(member) for member in members.values()))


def test_every_field_rule_and_column_is_there() -> None:
    parts = resource_schema()["properties"]
    names = fields(parts["spec"]) | fields(parts["status"])

    assert len(names) > 80
    assert [name for name in names if f"| `{name}` |" not in PAGE] == []
    assert [rule for rule in CEL_RULES if rule.message not in PAGE] == []
    assert [column for column in COLUMNS if f"| {column[0]} |" not in PAGE] == []


def test_rows_have_as_many_cells_as_their_table() -> None:
    cells = None
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            cells = None
            continue
        found = len(re.findall(r"(?<!\\)\|", line))
        assert cells in (None, found), line
        cells = found


def test_each_part_has_a_table_of_its_own() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)

    assert {"spec.model", "spec.scaling.metrics[]", "status.conditions[]"} <= set(headings)
    assert len(headings) == len(set(headings))
