"""Metadata of all children: owner references, labels, selectors, hashes. Pure.

`Context` is the argument of every builder. Names are derived from the resource's, whose limit
leaves room for every suffix.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from autoglm.api import API_VERSION, KIND, AutoGLMDeployment, Spec
from autoglm.api.labels import (
    COMPONENT,
    DEPLOYMENT,
    FIELD_MANAGER,
    INFERENCE,
    MANAGED_BY,
    NAME,
    PRODUCT,
)
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import Raw

Body = dict[str, Any]
APPLIED: Final = "autoglm.io/applied"
"""Annotation that holds the hash of the last declaration of a child."""


@dataclass(frozen=True, slots=True)
class Context:
    """A valid resource and the settings of the operator."""

    resource: AutoGLMDeployment
    settings: OperatorSettings

    @property
    def spec(self) -> Spec:
        return self.resource.spec

    @property
    def name(self) -> str:
        return self.resource.name

    @property
    def namespace(self) -> str:
        return self.resource.metadata.namespace


def child(context: Context, api_version: str, kind: str, name: str = "") -> Body:
    """Return a body with metadata only. Kubernetes deletes it with the resource."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name or context.name,
            "namespace": context.namespace,
            "labels": labels(context.name),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": context.name,
                    "uid": context.resource.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
    }


def labels(name: str) -> dict[str, str]:
    """Return the labels of every child."""
    return selector(name) | {MANAGED_BY: FIELD_MANAGER}


def selector(name: str) -> dict[str, str]:
    """Return the labels that select the resource's pods of all revisions."""
    return {NAME: PRODUCT, COMPONENT: INFERENCE, DEPLOYMENT: name}


def selector_text(name: str) -> str:
    """Return the same selector as text, for the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(name).items()))


def identity(body: Raw) -> tuple[str, str]:
    """Return kind and name, which identify a child of a resource."""
    return body["kind"], body["metadata"]["name"]


def revision_of(template: Any) -> str:
    """Return the revision of a pod template: 8 hexadecimal digits of its hash."""
    return digest(template)[:8]


def digest(value: Any) -> str:
    """Return the hash of a value as JSON, independent of the order of keys.

    It is the same after an upgrade of the operator: another revision would replace every replica.
    """
    text = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]
