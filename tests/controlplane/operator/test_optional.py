"""A real API server: an optional kind that cannot be listed keeps no operator from its work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.kube.controlplane import ControlPlane
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import OPTIONAL_CHILDREN, Kind

OTHER = "v1beta1"


@dataclass(frozen=True)
class Optional:
    """A kind, the spec that needs it, and how its absence shows in the status."""

    kind: Kind
    spec: dict[str, Any]
    condition: str
    reason: str

    @property
    def crd(self) -> str:
        return f"{self.kind.plural}.{self.kind.group}"


_KINDS = {kind.kind: kind for kind in OPTIONAL_CHILDREN}
KEDA = Optional(
    _KINDS["ScaledObject"],
    {"scaling": {"minReplicas": 1, "maxReplicas": 2, "actuator": "keda"}},
    "ScalingActive",
    "KedaUnavailable",
)
PROMETHEUS = Optional(
    _KINDS["PodMonitor"],
    {"observability": {"podMonitor": True}},
    "MonitoringActive",
    "PodMonitorUnavailable",
)


def _version(name: str, *, storage: bool) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
    }


def _crd(kind: Kind, conversion: dict[str, Any]) -> str:
    """The kind, stored in a version that only a conversion turns into ours."""
    names = {"plural": kind.plural, "kind": kind.kind, "singular": kind.kind.lower()}
    ours = kind.api_version.rpartition("/")[2]
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
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


@pytest.fixture(params=[KEDA, PROMETHEUS], ids=lambda optional: optional.kind.kind)
def optional(
    crd: ControlPlane, namespace: str, request: pytest.FixtureRequest
) -> Iterator[Optional]:
    """The kind is there, with an object that no conversion webhook converts."""
    found: Optional = request.param
    kind = found.kind
    crd.kubectl("apply", "-f", "-", text=_crd(kind, NOWHERE))
    crd.kubectl("wait", "--for=condition=Established", f"crd/{found.crd}", "--timeout=30s")
    stored = {
        "apiVersion": f"{kind.group}/{OTHER}",
        "kind": kind.kind,
        "metadata": {
            "name": "stored",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "autoglm-operator"},
        },
    }
    path = f"/apis/{kind.group}/{OTHER}/namespaces/{namespace}/{kind.plural}"
    crd.wait("the kind", lambda: bool(crd.kubectl("get", "--raw", path)))
    crd.kubectl("create", "-f", "-", text=json.dumps(stored))
    yield found
    crd.kubectl("apply", "-f", "-", text=_crd(kind, {"strategy": "None"}))
    crd.kubectl("delete", "crd", found.crd, "--wait=false")


async def condition(cluster: Cluster, name: str, type_: str) -> tuple[str, str]:
    """Return the condition's reason and message."""
    conditions = ((await cluster.resource(name)).get("status") or {}).get("conditions") or ()
    found: dict[str, str] = next((c for c in conditions if c["type"] == type_), {})
    return found.get("reason", ""), found.get("message", "")


async def test_a_conversion_webhook_that_is_away_blocks_nothing_and_is_reported(
    crd: ControlPlane, optional: Optional, cluster: Cluster
) -> None:
    running = await cluster.start(leader_election=True)
    await cluster.create("glm", **optional.spec)
    await until(lambda: cluster.is_ready("glm"), f"served without {optional.kind.kind}", 30)
    assert running.operator.is_leading

    async def is_reported() -> bool:
        return (await condition(cluster, "glm", optional.condition))[0] == optional.reason

    await until(is_reported, "the reason in the status", 10)
    assert "conversion webhook" in (await condition(cluster, "glm", optional.condition))[1]

    converted = _crd(optional.kind, {"strategy": "None"})
    await asyncio.to_thread(crd.kubectl, "apply", "-f", "-", text=converted)

    async def is_created() -> bool:
        return await cluster.get(optional.kind, "glm") is not None

    await until(is_created, "the object, once its kind can be listed", 30)
