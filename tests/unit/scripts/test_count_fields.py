"""Fields of the comparison are counted alike for every system, and the table is current."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from scripts.count_fields import FOLDER, FUNCTIONS, SYSTEMS, fields, table

from autoglm.api.documents import parse_manifest

ROOT = FOLDER.parents[1]
OWN = sorted(FOLDER.glob("*/open-autoglm.yaml"))


def test_a_field_counts_once_whatever_the_number_of_items() -> None:
    one = "kind: A\napiVersion: v1\nitems: [{x: 1}]\n"
    two = "kind: A\napiVersion: v1\nitems: [{x: 1}, {x: 2}]\n---\n" + one

    assert fields(one) == fields(two) == {("A", "kind"), ("A", "items.x")}


def test_the_same_path_of_two_kinds_is_two_fields() -> None:
    text = "kind: A\napiVersion: v1\nx: 1\n---\nkind: B\napiVersion: v1\nx: 1\n---\nx: 1\n"

    assert len(fields(text)) == 5


def test_an_empty_mapping_and_a_list_of_values_are_one_field_each() -> None:
    assert fields("route: {}\nargs: [a, b]\n") == {("", "route"), ("", "args")}


def test_the_table_in_the_readme_is_current() -> None:
    assert table() in (FOLDER / "README.md").read_text(), (
        "run: python -m scripts.count_fields --write"
    )


def test_every_file_is_in_the_table() -> None:
    found = {(file.parent.name, file.stem) for file in FOLDER.glob("*/*.yaml")}
    assert found <= {(function, system) for function in FUNCTIONS for system in SYSTEMS}


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.parent.name)
def test_our_own_files_are_valid(file: Path) -> None:
    resources = [
        d for d in yaml.safe_load_all(file.read_text()) if d.get("kind", "") == "AutoGLMDeployment"
    ]
    assert resources
    for resource in resources:
        parse_manifest(resource)


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.parent.name)
def test_our_own_values_are_those_of_the_chart(file: Path) -> None:
    schema = json.loads((ROOT / "deploy/helm/open-autoglm/values.schema.json").read_text())
    for document in yaml.safe_load_all(file.read_text()):
        if "kind" not in document:
            jsonschema.validate(document, schema)
