"""What all children share: whose they are, how they are found. Pure.

`Context` is what every builder gets. Names are derived from the resource's, whose length leaves
room for every suffix.
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
    """A valid resource and what the operator was installed with."""

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
    """A body with everything but its content. It is deleted with the resource."""
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
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.name,
        "uid": resource.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def labels(name: str) -> dict[str, str]:
    return selector(name) | {MANAGED_BY: FIELD_MANAGER}


def selector(name: str) -> dict[str, str]:
    """Finds the resource's pods, of whatever revision."""
    return {NAME: PRODUCT, COMPONENT: INFERENCE, DEPLOYMENT: name}


def selector_text(name: str) -> str:
    """The same as text, as the scale subresource has it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(name).items()))


def identity(body: Raw) -> tuple[str, str]:
    """Kind and name: which child of a resource an object is."""
    return body["kind"], body["metadata"]["name"]
