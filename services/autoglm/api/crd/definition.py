"""Generates the CustomResourceDefinitions from the types. Pure.

Turns pydantic's JSON schema into a structural schema, and defines the columns of `kubectl get`.
Called by scripts/generate_crd and by `autoglm precheck`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm.api.crd.cel import CEL_RULES, PROFILE_RULES, CelRule, visible_arguments
from autoglm.api.deployment import (
    GROUP,
    KIND,
    SHORT_NAME,
    VERSION,
    AutoGLMDeployment,
    Metadata,
    Spec,
)
from autoglm.api.labels import NAME, PLURAL, PRODUCT
from autoglm.api.profile import PROFILE_KIND, PROFILE_PLURAL, AutoGLMProfile, ProfileMetadata
from autoglm.api.schema import Part
from autoglm.api.spec.profile import ProfileSpec
from autoglm.api.status import Status

Schema = dict[str, Any]
# Keywords of JSON schema that a structural schema has as well.
_KEPT = (
    *("type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "required"),
)
_ANYTHING = {"x-kubernetes-preserve-unknown-fields": True}
# Header, JSON path, type, priority; `kubectl get` shows priority 1 with `-o wide` only.
COLUMNS = (
    ("Model", ".status.model.source", "string", 0),
    ("Quant", ".spec.model.quantization.method", "string", 0),
    ("Desired", ".spec.replicas", "integer", 0),
    ("Ready", ".status.readyReplicas", "integer", 0),
    ("Phase", ".status.phase", "string", 0),
    ("Age", ".metadata.creationTimestamp", "date", 0),
    ("Profile", ".spec.profile.name", "string", 1),
    ("Reason", '.status.conditions[?(@.type=="Ready")].reason', "string", 1),
    ("URL", ".status.url", "string", 1),
)


PROFILE_COLUMNS = (
    ("GPUs", r".spec.resources.limits.nvidia\.com/gpu", "string", 0),
    ("CPU", ".spec.resources.requests.cpu", "string", 0),
    ("Memory", ".spec.resources.requests.memory", "string", 0),
    ("Age", ".metadata.creationTimestamp", "date", 0),
    ("Image", ".spec.engine.image", "string", 1),
)


def crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of AutoGLMDeployments."""
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    names = {"kind": KIND, "plural": PLURAL, "shortNames": [SHORT_NAME]}
    version = _version(COLUMNS, resource_schema())
    version["subresources"] = {"status": {}, "scale": scale}
    return _definition(names, "Namespaced", ["autoglm", "ml"], version)


def profile_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of AutoGLMProfiles."""
    names = {"kind": PROFILE_KIND, "plural": PROFILE_PLURAL}
    return _definition(names, "Cluster", ["autoglm"], _version(PROFILE_COLUMNS, profile_schema()))


def _version(columns: tuple[tuple[str, str, str, int], ...], schema: Schema) -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": name, "jsonPath": path, "type": kind}
            | ({"priority": priority} if priority else {})
            for name, path, kind, priority in columns
        ],
        "schema": {"openAPIV3Schema": schema},
    }


def _definition(
    names: dict[str, Any], scope: str, categories: list[str], version: dict[str, Any]
) -> dict[str, Any]:
    kind, plural = names["kind"], names["plural"]
    more = {"listKind": f"{kind}List", "singular": kind.lower(), "categories": categories}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {NAME: PRODUCT}},
        "spec": {"group": GROUP, "names": names | more, "scope": scope, "versions": [version]},
    }


def resource_schema() -> Schema:
    """Return the structural schema of an AutoGLMDeployment with its CEL rules."""
    parts = {"spec": part_schema(Spec), "status": part_schema(Status)}
    return _schema(AutoGLMDeployment, Metadata, parts, CEL_RULES)


def profile_schema() -> Schema:
    """Return the structural schema of an AutoGLMProfile with its CEL rules."""
    return _schema(
        AutoGLMProfile, ProfileMetadata, {"spec": part_schema(ProfileSpec)}, PROFILE_RULES
    )


def _schema(
    kind: type[Part], metadata: type[Part], parts: dict[str, Schema], rules: tuple[CelRule, ...]
) -> Schema:
    name = part_schema(metadata)["properties"]["name"]
    # A CRD may restrict only the name and generateName of metadata.
    del name["description"]
    schema: Schema = {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            **parts,
        },
    }
    at(schema, "spec.engine.args")["properties"] = visible_arguments()
    for rule in rules:
        place = at(schema, rule.path)
        place.setdefault("x-kubernetes-validations", []).append(rule.written())
    return schema


def at(schema: Schema, path: str) -> Schema:
    """Return the schema of a field by its dotted path; `[]` selects the items of a list."""
    for step in path.split(".") if path else ():
        name, brackets, _ = step.partition("[]")
        schema = schema["properties"][name]
        schema = schema["items"] if brackets else schema
    return schema


def part_schema(part: type[Part]) -> Schema:
    """Return the structural schema of a part, without CEL rules."""
    document = part.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}))


def _structural(node: Mapping[str, Any], parts: Mapping[str, Any]) -> Schema:
    node = _resolved(node, parts)
    schema: Schema = {}
    if "description" in node:
        schema["description"] = " ".join(node["description"].split())
    schema |= {word: node[word] for word in _KEPT if word in node}
    schema |= {word: value for word, value in node.items() if word.startswith("x-kubernetes-")}
    # OpenAPI 3.0 has an exclusive bound as a bound and a flag.
    for word, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if word in node:
            schema |= {bound: node[word], word: True}
    if "const" in node:
        schema["enum"] = [node["const"]]
    if schema.get("x-kubernetes-int-or-string"):
        schema["anyOf"] = node["anyOf"]
    elif "items" in node:
        schema["items"] = _structural(node["items"], parts)
    elif node.get("type") == "object":
        schema |= _members(node, parts)
    elif "type" not in node:
        schema |= _ANYTHING
    return schema | _default(node, schema)


def _resolved(node: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a node with its reference resolved, and optional instead of nullable."""
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        outer = {word: value for word, value in node.items() if word != "anyOf"}
        return _resolved({**options[0], **outer}, parts)
    if "$ref" in node:
        outer = {word: value for word, value in node.items() if word != "$ref"}
        return _resolved({**parts[node["$ref"].rpartition("/")[2]], **outer}, parts)
    return node


def _members(node: Mapping[str, Any], parts: Mapping[str, Any]) -> Schema:
    if "properties" in node:
        members = {name: _structural(n, parts) for name, n in node["properties"].items()}
        return {"properties": members}
    values = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    # A structural schema can neither restrict keys nor describe values of any type.
    if not values[0] or values[0] is True:
        return dict(_ANYTHING)
    return {"additionalProperties": _structural(values[0], parts)}


def _default(node: Mapping[str, Any], schema: Schema) -> Schema:
    if "properties" in node:
        # With its fields' defaults, since CEL rules run on a default before those are filled in.
        members = schema["properties"].items()
        inner = {name: member["default"] for name, member in members if "default" in member}
        return {"default": inner} if inner and node.get("default") is not None else {}
    # An empty list or map means the same as none.
    default = node.get("default")
    return {} if default in (None, "", [], {}) else {"default": default}
