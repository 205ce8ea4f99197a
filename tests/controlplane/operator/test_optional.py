"""A real API server: an optional kind that cannot be listed keeps no operator from its work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from autoglm.operator.kinds import OPTIONAL_CHILDREN
from autoglm.testing.controlplane import ControlPlane
from autoglm.testing.operating import Cluster, until

SCALER = next(kind for kind in OPTIONAL_CHILDREN if kind.kind == "ScaledObject")
NAME = f"{SCALER.plural}.{SCALER.group}"
OTHER = "v1beta1"


def _version(name: str, *, storage: bool) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
    }


def _crd(conversion: dict[str, Any]) -> str:
    """ScaledObjects, stored in a version that only a conversion turns into ours."""
    names = {"plural": SCALER.plural, "kind": SCALER.kind, "singular": "scaledobject"}
    ours = SCALER.api_version.rpartition("/")[2]
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": SCALER.group,
            "names": names,
            "scope": "Namespaced",
            "conversion": conversion,
            "versions": [_version(ours, storage=False), _version(OTHER, storage=True)],
        },
    }
    return json.dumps(body)


NOWHERE = {
    "strategy": "Webhook",
    "webhook": {
        "clientConfig": {"url": "https://127.0.0.1:1/convert"},
        "conversionReviewVersions": ["v1"],
    },
}


@pytest.fixture
def unlistable(crd: ControlPlane, namespace: str) -> Iterator[ControlPlane]:
    """KEDA's kind is there, with an object that no conversion webhook converts."""
    crd.kubectl("apply", "-f", "-", text=_crd(NOWHERE))
    crd.kubectl("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=30s")
    stored = {
        "apiVersion": f"{SCALER.group}/{OTHER}",
        "kind": SCALER.kind,
        "metadata": {
            "name": "stored",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "autoglm-operator"},
        },
    }
    path = f"/apis/{SCALER.group}/{OTHER}/namespaces/{namespace}/{SCALER.plural}"
    crd.wait("the kind", lambda: bool(crd.kubectl("get", "--raw", path)))
    crd.kubectl("create", "-f", "-", text=json.dumps(stored))
    yield crd
    crd.kubectl("apply", "-f", "-", text=_crd({"strategy": "None"}))
    crd.kubectl("delete", "crd", NAME, "--wait=false")


async def scaling(cluster: Cluster, name: str) -> tuple[str, str]:
    conditions = ((await cluster.resource(name)).get("status") or {}).get("conditions") or ()
    found: dict[str, str] = next((c for c in conditions if c["type"] == "ScalingActive"), {})
    return found.get("reason", ""), found.get("message", "")


async def test_a_conversion_webhook_that_is_away_blocks_nothing_and_is_reported(
    unlistable: ControlPlane, cluster: Cluster
) -> None:
    running = await cluster.start(leader_election=True)
    await cluster.create("glm", scaling={"minReplicas": 1, "maxReplicas": 2, "actuator": "keda"})
    await until(lambda: cluster.is_ready("glm"), "served without KEDA", 30)
    assert running.operator.is_leading

    async def is_reported() -> bool:
        return (await scaling(cluster, "glm"))[0] == "KedaUnavailable"

    await until(is_reported, "the reason in the status", 10)
    assert "conversion webhook" in (await scaling(cluster, "glm"))[1]

    await asyncio.to_thread(unlistable.kubectl, "apply", "-f", "-", text=_crd({"strategy": "None"}))

    async def is_scaled() -> bool:
        return await cluster.get(SCALER, "glm") is not None

    await until(is_scaled, "a ScaledObject once the kind can be listed", 30)
