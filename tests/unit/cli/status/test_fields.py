"""Fields of the resource are explained without a cluster, in kubectl's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from autoglm.api.crd.definition import crd
from autoglm.cli.status.fields import explain_field, is_path


def test_a_field_has_its_type_default_values_and_those_below_it(autoglm: Any) -> None:
    result = autoglm("explain", "agd.spec.model.cache")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(
        "KIND:     AutoGLMDeployment\n"
        "VERSION:  autoglm.io/v1alpha1\n"
        "\n"
        "FIELD: cache <Object>\n"
        "\n"
        "DESCRIPTION:\n"
        "    Volume for downloaded weights.\n"
        "\n"
        "FIELDS:\n"
    )
    assert "  sizeLimit\t<IntOrString>  [at least 0]\n" in result.out
    assert "  type\t<string>  [default: emptyDir; one of emptyDir, pvc, hostPath]\n" in result.out


def test_required_fields_are_marked(autoglm: Any) -> None:
    assert "  model\t<Object> -required-\n" in autoglm("explain", "agd.spec").out


@pytest.mark.parametrize(
    ("name", "is_field"),
    [
        ("agd", True),
        ("AutoGLMDeployment.spec", True),
        ("autoglmdeployments.autoglm.io.spec.routing", True),
        ("chat", False),
        ("agd-chat", False),
        ("chat.agd", False),
        ("agd.v1.5", False),
    ],
)
def test_a_plain_name_is_a_deployment(name: str, is_field: bool) -> None:
    assert is_path(name) is is_field


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("agd.spec.modle", "agd.spec has no field 'modle'; did you mean model?"),
        ("agd.spec.model.cache.xyz", "agd.spec.model.cache has no field 'xyz'; it has accessMode"),
        ("agd.spec.replicas.x", "agd.spec.replicas has no fields of its own"),
    ],
)
def test_an_unknown_field_is_a_usage_error(autoglm: Any, path: str, why: str) -> None:
    result = autoglm("explain", path)
    assert result.code == 2
    assert why in result.err.replace("\n", " ")


def paths(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    yield path
    inner = schema
    while "items" in inner or isinstance(inner.get("additionalProperties"), Mapping):
        inner = inner.get("items") or inner["additionalProperties"]
    for name, below in inner.get("properties", {}).items():
        yield from paths(below, f"{path}.{name}")


def test_every_field_of_the_resource_is_explained() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found = list(paths(schema, "agd"))
    assert len(found) > 150
    for path in found:
        assert is_path(path) and "DESCRIPTION:" in explain_field(path)
