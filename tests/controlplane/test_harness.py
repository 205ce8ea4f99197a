"""The control plane that the ring runs on is a real one."""

from typing import Any

import kubernetes.client
import pytest
from tests.support.kube.controlplane import HOLD, ControlPlane
from tests.support.kube.daemon import ClusterFailed
from tests.support.processes import eventually


def deployment(name: str, replicas: int = 2, **annotations: str) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [{"name": "engine", "image": "fake"}]},
            },
        },
    }


def create(cluster: ControlPlane, namespace: str, document: dict[str, Any]) -> None:
    cluster.apply({**document, "metadata": {**document["metadata"], "namespace": namespace}})


def test_server_says_its_version_so_that_helm_accepts_it(control_plane: ControlPlane) -> None:
    version = kubernetes.client.VersionApi(control_plane.client()).get_code()
    assert (version.major, version.minor) == ("1", "36")
    assert version.git_version.startswith("v1.36.")


def test_deployment_becomes_available_on_fake_nodes(
    control_plane: ControlPlane, namespace: str
) -> None:
    create(control_plane, namespace, deployment("web"))
    control_plane.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    pods = control_plane.get("pods", "-n", namespace)["items"]
    assert len({pod["status"]["podIP"] for pod in pods}) == 2


def test_held_pod_stays_pending_for_the_test_to_write_its_status(
    control_plane: ControlPlane, namespace: str
) -> None:
    create(control_plane, namespace, deployment("held", 1, **{HOLD: "true"}))
    create(control_plane, namespace, deployment("free", 1))
    control_plane.kubectl("rollout", "status", "deployment/free", "-n", namespace, "--timeout=60s")
    (pod,) = control_plane.get("pods", "-n", namespace, "-l", "app=held")["items"]
    assert pod["status"]["phase"] == "Pending"


def test_restarted_api_server_has_all_objects_and_the_controllers_come_back(
    control_plane: ControlPlane, namespace: str
) -> None:
    create(control_plane, namespace, deployment("before", 1))
    control_plane.restart_api_server()
    assert control_plane.get("deployment", "before", "-n", namespace)
    create(control_plane, namespace, deployment("after", 1))
    control_plane.kubectl("rollout", "status", "deployment/after", "-n", namespace, "--timeout=60s")


def test_stopped_api_server_refuses_until_it_is_started(control_plane: ControlPlane) -> None:
    control_plane.stop_api_server()
    try:
        with pytest.raises(ClusterFailed, match="refused"):
            control_plane.kubectl("get", "namespaces")
    finally:
        control_plane.start_api_server()
    assert control_plane.get("namespaces")["items"]


def test_autoscaler_reads_its_target(control_plane: ControlPlane, namespace: str) -> None:
    create(control_plane, namespace, deployment("scaled", 1))
    control_plane.kubectl(
        *("autoscale", "deployment/scaled", "-n", namespace, "--min=1", "--max=3", "--cpu=50%")
    )

    def conditions() -> dict[str, str]:
        status = control_plane.get("hpa", "scaled", "-n", namespace)["status"]
        return {c["type"]: c["reason"] for c in status.get("conditions", [])}

    eventually(lambda: conditions().get("AbleToScale") is not None, 60, "the autoscaler's verdict")
    # There are no metrics here; the real node's ring has them.
    assert conditions()["ScalingActive"] == "FailedGetResourceMetric"
