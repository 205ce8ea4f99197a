"""The JSON Schema (draft 2020-12) of manifests, for editors, from the schema of the CRD. Pure.

Editors complete and check fields with it. Rules between fields (CEL) are not in it: `autoglm
validate` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.api.crd.definition import crd

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the schema of one AutoGLMDeployment."""
    definition = crd()["spec"]
    version = definition["versions"][0]
    kind = definition["names"]["kind"]
    resource = _converted(version["schema"]["openAPIV3Schema"])
    properties = resource["properties"]
    properties.pop("status", None)
    properties["apiVersion"] = {"const": f"{definition['group']}/{version['name']}"}
    properties["kind"] = {"const": kind}
    # Kubernetes defines it: labels, annotations and more.
    properties["metadata"] = {"type": "object", "required": ["name"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        **resource,
        "required": ["apiVersion", "kind", "metadata", "spec"],
    }


def _converted(schema: Mapping[str, Any]) -> Schema:
    """Return a structural schema without what only Kubernetes has."""
    made = {k: v for k, v in schema.items() if not k.startswith("x-kubernetes-")}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        # OpenAPI 3.0 marks a bound as exclusive; JSON Schema has a number of its own.
        if made.pop(exclusive, False) is True:
            made[exclusive] = made.pop(bound)
    if properties := schema.get("properties"):
        made["properties"] = {name: _converted(below) for name, below in properties.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if isinstance(items := schema.get("items"), Mapping):
        made["items"] = _converted(items)
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _converted(values)
    return made
