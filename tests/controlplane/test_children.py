"""A real API server takes every child, finds nothing wrong with it, and keeps it as planned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.fake_cluster import NOW
from tests.support.kube.controlplane import ControlPlane
from tests.support.resources import GOOD

from autoglm.api import parse
from autoglm.operator.plan import plan
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import ObservedObjects
from autoglm.operator.writes.diff import differs

SETTINGS = OperatorSettings(allow_host_path=True)
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
TEMPLATE = {
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "nodeSelector": {"gpu": "h200"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "weights"}}],
        "containers": [
            {
                "name": "engine",
                "volumeMounts": [{"name": "weights", "mountPath": "/models"}],
                "startupProbe": {"failureThreshold": 9},
            },
            {"name": "logs", "image": "logs:1", "resources": {"requests": {"cpu": "0.5"}}},
        ],
    },
}
QUANTITIES = {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"memory": "0.5Gi"}}
SPECS: dict[str, Any] = {case.name: dict(case.spec) for case in GOOD} | {
    "template": {"model": {"uri": "/models/glm"}, "template": TEMPLATE},
    "quantities": {"model": {"uri": "a/b"}, "resources": {"requests": QUANTITIES["requests"]}},
    "gpus": {"model": {"uri": "a/b"}, "engine": {"parallelism": {"tensor": 8}}},
}
Judge = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def resource(name: str, spec: dict[str, Any], namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "autoglm.io/v1alpha1",
        "kind": "AutoGLMDeployment",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def restricted(control_plane: ControlPlane) -> Iterator[str]:
    name = "restricted"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("label", "namespace", name, RESTRICTED)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def planned(restricted: str) -> dict[str, list[dict[str, Any]]]:
    """The children of every spec, each of a resource of its own."""
    children = {}
    for number, (case, spec) in enumerate(SPECS.items()):
        document = resource(f"m{number}", spec, restricted)
        parse(document)
        made = plan(ObservedObjects(document), SETTINGS, NOW)
        assert made.apply, made.status
        children[case] = [dict(body) for body in made.apply]
    return children


@pytest.fixture(scope="module")
def kept(
    control_plane: ControlPlane, planned: dict[str, list[dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """What the API server makes of them; nothing is stored."""
    everything = [body for bodies in planned.values() for body in bodies]
    answers = _tried(control_plane, everything)
    return {_identity(body): body for body in answers}


def _tried(cluster: ControlPlane, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    listed = {"apiVersion": "v1", "kind": "List", "items": bodies}
    answer = cluster.kubectl(
        *("apply", "--server-side", "--field-manager=autoglm-operator", "--dry-run=server"),
        *("--validate=strict", "-o", "json", "-f", "-"),
        text=json.dumps(listed),
    )
    found: list[dict[str, Any]] = json.loads(answer)["items"]
    return found


def _identity(body: dict[str, Any]) -> str:
    return f"{body['kind']} {body['metadata']['name']}"


@pytest.mark.parametrize("case", SPECS)
def test_defaults_of_the_api_server_are_no_difference(
    case: str, planned: dict[str, list[dict[str, Any]]], kept: dict[str, dict[str, Any]]
) -> None:
    different = [_identity(b) for b in planned[case] if differs(b, kept[_identity(b)])]

    assert different == []


def test_pods_are_admitted_where_the_restricted_profile_is_enforced(
    control_plane: ControlPlane, restricted: str, planned: dict[str, list[dict[str, Any]]]
) -> None:
    # Their accounts were not stored.
    control_plane.kubectl("create", "serviceaccount", "m", "-n", restricted)
    pods = []
    # The Pods of a model wait for the Job that fills its cache.
    owners = [b for each in planned.values() for b in each if b["kind"] in ("Deployment", "Job")]
    assert len(owners) == len(planned)
    for owner in owners:
        template = owner["spec"]["template"]
        if any("hostPath" in volume for volume in template["spec"]["volumes"]):
            continue
        name = owner["metadata"]["name"]
        metadata = template["metadata"] | {"name": name, "namespace": restricted}
        spec = template["spec"] | {"serviceAccountName": "m"}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    assert len(_tried(control_plane, pods)) == len(pods) > 10
