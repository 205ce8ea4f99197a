"""The nodes that the ring runs on are real, and leave nothing behind."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
from tests.support.kube.daemon import ClusterFailed
from tests.support.kube.images import dockerfile_image
from tests.support.kube.node import Node
from tests.support.processes import eventually

TOY = "autoglm-test/toy:1"
DOCKERFILE = """\
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
RUN mkdir /srv/page && echo hello >/srv/page/index.html
USER 10001:10001
WORKDIR /srv/page
CMD ["python3", "-m", "http.server", "8000"]
"""
LOCKED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": "toy",
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    },
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "toy", "namespace": "toy"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "toy"}},
        "template": {
            "metadata": {"labels": {"app": "toy"}},
            "spec": {
                # As process 1 it does not hear SIGTERM.
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "toy",
                        "image": TOY,
                        "imagePullPolicy": "Never",
                        "ports": [{"containerPort": 8000}],
                        "readinessProbe": {
                            "httpGet": {"path": "/", "port": 8000},
                            "periodSeconds": 1,
                        },
                        "securityContext": LOCKED,
                    }
                ],
            },
        },
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "toy", "namespace": "toy"},
    "spec": {"selector": {"app": "toy"}, "ports": [{"port": 80, "targetPort": 8000}]},
}

ASK = "import urllib.request as u; print(u.urlopen('http://toy.toy.svc', timeout=2).read())"


@pytest.fixture(scope="module")
def toy(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Two pods of an image built from a Dockerfile, behind a Service."""
    directory = tmp_path_factory.mktemp("toy")
    dockerfile = directory / "Dockerfile"
    dockerfile.write_text(DOCKERFILE)
    node.import_image(dockerfile_image(TOY, dockerfile, directory / "toy.tar", directory))
    node.apply(NAMESPACE, DEPLOYMENT, SERVICE)
    node.kubectl("rollout", "status", "deployment/toy", "-n", "toy", "--timeout=120s")
    yield node
    node.kubectl("delete", "namespace", "toy")


def in_pod(node: Node, code: str) -> str:
    return node.kubectl("exec", "-n", "toy", "deployment/toy", "--", "python3", "-c", code)


def test_nodes_are_ready_and_say_what_they_run(node: Node) -> None:
    nodes = node.get("nodes")["items"]
    assert [n["metadata"]["name"] for n in nodes] == ["node-0", "node-1"]
    for info in (n["status"]["nodeInfo"] for n in nodes):
        assert info["kubeletVersion"] == "v1.36.3"
        assert info["containerRuntimeVersion"].startswith("containerd://")


def test_pods_of_a_built_image_run_under_the_restricted_standard(toy: Node) -> None:
    status = in_pod(toy, "print(open('/proc/self/status').read())")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(lines["CapBnd"], 16) == 0
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")


def test_service_responds_to_its_name_inside_and_to_its_address_outside(toy: Node) -> None:
    def responds() -> bool:
        # kube-proxy hears of new endpoints a second or two after the rollout.
        with contextlib.suppress(ClusterFailed):
            return "hello" in in_pod(toy, ASK)
        return False

    eventually(responds, 30, "the Service answers a pod")
    address = toy.get("service", "toy", "-n", "toy")["spec"]["clusterIP"]
    for _ in range(10):
        assert toy.run("curl", "--silent", "--max-time", "5", f"http://{address}") == "hello\n"


def test_pods_of_each_node_reach_each_other_and_themselves_by_the_service(toy: Node) -> None:
    pods = toy.get("pods", "-n", "toy")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-0", "node-1"}
    for pod in pods:
        name = pod["metadata"]["name"]
        code = f"{ASK}\n" * 10
        output = toy.kubectl("exec", "-n", "toy", name, "--", "python3", "-c", code)
        assert output.count("hello") == 10


def test_drained_node_hands_its_pods_to_the_other(toy: Node) -> None:
    toy.kubectl("drain", "node-0", "--ignore-daemonsets", "--delete-emptydir-data", "--force")
    try:
        toy.kubectl("rollout", "status", "deployment/toy", "-n", "toy", "--timeout=60s")
        pods = toy.get("pods", "-n", "toy", "--field-selector=status.phase=Running")["items"]
        assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1"}
    finally:
        toy.kubectl("uncordon", "node-0")


def test_unknown_name_does_not_exist_rather_than_fail(toy: Node) -> None:
    code = """
import socket
try:
    socket.getaddrinfo("nowhere.example.com", 80)
except socket.gaierror as error:
    print(error.errno == socket.EAI_NONAME)
"""
    assert in_pod(toy, code).strip() == "True"


def test_pod_reaches_the_api_server_with_its_own_account(toy: Node) -> None:
    code = """
import ssl, urllib.request
mounted = "/var/run/secrets/kubernetes.io/serviceaccount"
page = urllib.request.Request("https://kubernetes.default.svc/version", headers={
    "Authorization": "Bearer " + open(mounted + "/token").read()})
trust = ssl.create_default_context(cafile=mounted + "/ca.crt")
print(urllib.request.urlopen(page, context=trust).read().decode())
"""
    assert json.loads(in_pod(toy, code))["gitVersion"] == "v1.36.3"


def test_resource_metrics_of_pods_are_there(toy: Node) -> None:
    def measured() -> bool:
        path = "/apis/metrics.k8s.io/v1beta1/namespaces/toy/pods"
        # metrics-server, too, was drained from its node a moment ago.
        with contextlib.suppress(ClusterFailed):
            pods: list[Any] = json.loads(toy.kubectl("get", f"--raw={path}"))["items"]
            return len(pods) == 2
        return False

    eventually(measured, 60, "metrics of both pods")


def test_thread_inside_talks_to_the_node(toy: Node) -> None:
    with toy.entered():
        assert kubernetes.client.VersionApi(toy.client()).get_code().git_version == "v1.36.3"


def network() -> dict[str, str]:
    """What of the machine's network a node could change."""
    shown = {
        "addresses": ("ip", "-brief", "address"),
        "routes": ("ip", "route"),
        "packet filter": ("nft", "list", "tables"),
    }
    return {
        what: subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for what, command in shown.items()
    }


def traces(namespaces: str, cgroups: Sequence[str], directory: Path) -> Iterator[str]:
    """What one node has left: processes, cgroups, mounts, files outside of its directory."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((process / "ns/net").readlink()) == namespaces:
                yield (process / "cmdline").read_text()
    for name in cgroups:
        yield from map(str, Path("/sys/fs/cgroup").glob(f"**/{name}"))
    yield from (m for m in Path("/proc/mounts").read_text().splitlines() if str(directory) in m)
    hidden = ("/run/containerd-0", "/var/lib/containerd", "/var/log/pods")
    yield from (path for path in hidden if Path(path).exists())


def test_ended_node_leaves_the_machine_as_it_was(prerequisites: None, tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    before = network()
    with Node(directory) as other:
        namespaces = str(Path(f"/proc/{other.namespace.init}/ns/net").readlink())
        cgroups = other.namespace.cgroups
        assert list(traces(namespaces, cgroups, directory))
    assert list(traces(namespaces, cgroups, directory)) == []
    assert network() == before
    assert not (directory / "node-0/containerd").exists()
    assert (directory / "kubelet-0.log").exists()
