"""Metadata of all children: owner references, labels, selectors. Pure.

`Context` is the argument of every builder. Names are derived from the resource's, whose limit
leaves room for every suffix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from autoglm.operator.observed import Raw, Settings

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Context:
    """A valid resource and the settings of the operator."""

    resource: AutoGLMDeployment
    settings: Settings

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
            "ownerReferences": [owner_reference(context.resource)],
        },
    }


def owner_reference(resource: AutoGLMDeployment) -> Body:
    """Return the owner reference to the resource."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.name,
        "uid": resource.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
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
