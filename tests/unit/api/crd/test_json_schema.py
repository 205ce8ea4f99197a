"""Editors accept what the API accepts, and mark what it rejects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from autoglm.api.crd.json_schema import json_schema

ROOT = Path(__file__).parents[4]
SCHEMA = json_schema()
MANIFEST: dict[str, Any] = {
    "apiVersion": "autoglm.io/v1alpha1",
    "kind": "AutoGLMDeployment",
    "metadata": {"name": "chat", "labels": {"team": "a"}},
    "spec": {"model": {"uri": "org/model", "cache": {"type": "emptyDir", "sizeLimit": "5Gi"}}},
}


def problems(manifest: Any) -> list[str]:
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest)
    return [".".join(map(str, each.absolute_path)) for each in found]


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def examples() -> Iterator[Path]:
    for path in sorted(ROOT.glob("examples/**/*.yaml")):
        documents = list(yaml.safe_load_all(path.read_text()))
        if all(isinstance(d, dict) and d.get("kind") == "AutoGLMDeployment" for d in documents):
            yield path


@pytest.mark.parametrize("path", list(examples()), ids=lambda path: path.name)
def test_examples_are_accepted(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert problems(document) == []


def test_there_are_examples() -> None:
    assert len(list(examples())) >= 3


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"kind": "Deployment"}, "kind"),
        ({"apiVersion": "v1"}, "apiVersion"),
        ({"spec": {"model": {"uri": "a/b"}, "replica": 2}}, "spec"),
        ({"spec": {"model": {"uri": "a/b"}, "replicas": "two"}}, "spec.replicas"),
        ({"spec": {"model": {"uri": "a/b", "cache": {"type": "nfs"}}}}, "spec.model.cache.type"),
        (
            {"spec": {"model": {"uri": "a/b"}, "routing": {"timeouts": {"chunkSeconds": 0}}}},
            "spec.routing.timeouts.chunkSeconds",
        ),
    ],
)
def test_a_wrong_field_is_marked_where_it_is(change: dict[str, Any], where: str) -> None:
    assert problems(MANIFEST) == []
    assert where in problems(MANIFEST | change)
