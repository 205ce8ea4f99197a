"""The CRD says what the types say, and nothing in it is without bounds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoglm.api import Spec
from autoglm.api.crd.cel import CEL_RULES, CelRule
from autoglm.api.crd.definition import COLUMNS, at, crd, part_schema, resource_schema
from autoglm.api.rules import FIELD_OF_ARG
from autoglm.api.status import ConditionType, Phase, Status

ROOT = Path(__file__).parents[4]


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}.{word}")


NODES = [*nodes(part_schema(Spec), "spec"), *nodes(part_schema(Status), "status")]


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_crd", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(("path", "node"), NODES, ids=[path for path, _ in NODES])
def test_every_node_is_structural_and_bounded(path: str, node: dict[str, Any]) -> None:
    kind = node.get("type")
    is_open = node.get("x-kubernetes-preserve-unknown-fields", False)

    assert kind or is_open or node.get("x-kubernetes-int-or-string")
    assert kind != "array" or {"maxItems", "items"} <= set(node)
    assert kind != "string" or set(node) & {"maxLength", "enum", "format"}
    assert kind != "object" or is_open or "properties" in node or "maxProperties" in node
    assert not {"title", "$ref", "const", "patternProperties"} & set(node)


def test_every_field_is_described() -> None:
    silent = [
        path
        for path, node in NODES
        if not path.endswith((".items", ".additionalProperties")) and "description" not in node
    ]
    assert silent == []


def test_what_is_absent_gets_its_default() -> None:
    schema = resource_schema()

    assert at(schema, "spec.replicas")["default"] == 1
    assert at(schema, "spec.engine")["default"]["type"] == "vllm"
    assert at(schema, "spec.scaling.metrics")["default"] == [{"type": "CPU", "target": 80}]
    assert "default" not in at(schema, "spec.scaling")
    assert "default" not in at(schema, "spec.model.aliases")


def test_scale_and_status_are_subresources() -> None:
    [version] = crd()["spec"]["versions"]

    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_columns_show_fields_that_exist() -> None:
    schema = resource_schema()
    paths = [path.removeprefix(".") for _, path, _, _ in COLUMNS if "[" not in path]

    for path in set(paths) - {"metadata.creationTimestamp"}:
        assert at(schema, path)["type"] in ("string", "integer")


@pytest.mark.parametrize("rule", CEL_RULES, ids=lambda rule: f"{rule.path}: {rule.message[:40]}")
def test_a_rule_is_written_where_it_applies(rule: CelRule) -> None:
    place = at(resource_schema(), rule.path)

    assert rule.written() in place["x-kubernetes-validations"]
    assert rule.field == "" or rule.field in place["properties"]
    # Names the way out after the fact.
    assert ";" in rule.message or "," in rule.message


def test_arguments_that_rules_speak_of_are_visible_in_both_spellings() -> None:
    seen = at(resource_schema(), "spec.engine.args")["properties"]

    assert {name.replace("-", "_") for name in seen} == set(FIELD_OF_ARG)
    assert {"max_model_len", "max-model-len"} <= set(seen)


def test_status_words_are_explained() -> None:
    phase = at(part_schema(Status), "phase")["description"]
    condition = at(part_schema(Status), "conditions[].type")["description"]

    assert all(word.value in phase for word in Phase)
    assert all(word.value in condition for word in ConditionType)
