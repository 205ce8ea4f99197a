"""The whole product on a real node: chart, operator, gateway, and pods that answer under change.

The images are built from deploy/images. The echo engine answers, so that the ring needs no weights
of gigabytes; what vLLM itself does is shown by the other rings.
"""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm.client import Client
from autoglm.testing.kube_images import dockerfile_image
from autoglm.testing.node import Node
from autoglm.testing.processes import eventually
from autoglm.testing.traffic import Ask, traffic

ROOT = Path(__file__).parents[2]
IMAGE = "open-autoglm"
TAG = "test"
SYSTEM = "autoglm-system"
GATEWAY = "open-autoglm-gateway"
MANIFEST = ROOT / "examples/echo.yaml"
INSTALL = (
    *("install", "open-autoglm", str(ROOT / "deploy/helm/open-autoglm"), "-n", SYSTEM),
    *("--create-namespace", "--wait", "--timeout", "180s", "--set", "crds.keep=false"),
    *("--set", f"image.repository=docker.io/library/{IMAGE}", "--set", f"image.tag={TAG}"),
    # Two gateways, two operators and the model share a small machine.
    *("--set", "gateway.resources.requests.cpu=50m"),
    *("--set", "operator.resources.requests.cpu=50m"),
)


@pytest.fixture(scope="module")
def cluster(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Open-AutoGLM installed, and this thread on the node's network."""
    archive = tmp_path_factory.mktemp("images") / "open-autoglm.tar"
    node.import_image(
        dockerfile_image(f"{IMAGE}:{TAG}", ROOT / "deploy/images/open-autoglm/Dockerfile", archive)
    )
    node.helm(*INSTALL)
    with node.entered():
        yield node


@pytest.fixture(scope="module")
def address(cluster: Node) -> str:
    """Of the gateway's Service."""
    path = "jsonpath={.spec.clusterIP}"
    return cluster.kubectl("get", "service", "-n", SYSTEM, GATEWAY, "-o", path)


@pytest.fixture(scope="module")
def model(cluster: Node) -> str:
    """A served model: what a user applies."""
    cluster.kubectl("apply", "-f", str(MANIFEST))
    wait_ready(cluster)
    return "echo"


def wait_ready(cluster: Node, seconds: int = 120) -> None:
    """Until the newest spec is what runs."""

    def is_ready() -> bool:
        found = cluster.get("agd", "echo")
        status = found.get("status", {})
        done = status.get("observedGeneration") == found["metadata"]["generation"]
        return bool(done and status.get("phase") == "Ready")

    eventually(is_ready, seconds, "echo is ready")


def patch(cluster: Node, spec: object) -> None:
    text = json.dumps({"spec": spec})
    cluster.kubectl("patch", "agd", "echo", "--type=merge", "-p", text)


def pods(cluster: Node) -> dict[str, bool]:
    """Names of the model's pods that are not ending, and whether they are ready."""
    found = cluster.get("pods", "-l", "autoglm.io/deployment=echo")["items"]
    return {
        p["metadata"]["name"]: any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in p["status"].get("conditions", ())
        )
        for p in found
        if "deletionTimestamp" not in p["metadata"]
    }


def asks(address: str) -> list[Ask]:
    """Clients that try once: what fails, fails."""

    def grpc() -> None:
        with Client(f"{address}:50051") as client:
            assert client.generate("one two three", model="echo", timeout=30).completions[0].text

    def stream() -> None:
        with Client(f"{address}:50051") as client:
            chunks = client.generate_stream("one two three", model="echo", timeout=30)
            assert "".join(c.text for c in chunks)

    def rest() -> None:
        body = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
        assert "one" in post(address, body)

    return [grpc, stream, rest]


def post(address: str, body: object) -> str:
    request = urllib.request.Request(
        f"http://{address}:8000/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: str = json.load(answer)["choices"][0]["message"]["content"]
    return content


def test_an_applied_model_answers_through_the_gateways_service(model: str, address: str) -> None:
    for ask in asks(address):
        ask()


def test_the_charts_own_test_passes(model: str, cluster: Node) -> None:
    assert re.search(r"Phase:\s+Succeeded", cluster.helm("test", "-n", SYSTEM, "open-autoglm"))


def test_a_rolling_update_fails_no_request(model: str, cluster: Node, address: str) -> None:
    before = set(pods(cluster))
    with traffic(asks(address)) as result:
        result.wait_served(20)
        patch(cluster, {"model": {"maxModelLen": 4096}})
        wait_ready(cluster)
        result.wait_served(20)
    assert result.failures == []
    assert before.isdisjoint(pods(cluster))


def test_draining_one_node_after_the_other_fails_no_request(
    model: str, cluster: Node, address: str
) -> None:
    nodes = [n["metadata"]["name"] for n in cluster.get("nodes")["items"]]
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=240s")
    with traffic(asks(address)) as result:
        for name in nodes:
            result.wait_served(20)
            cluster.kubectl("drain", name, *flags)
            eventually(lambda: list(pods(cluster).values()) == [True, True], 120, "both are back")
            cluster.kubectl("uncordon", name)
        wait_ready(cluster)
        result.wait_served(20)
    assert result.failures == []


def test_a_restart_of_gateways_and_operators_fails_no_request(
    model: str, cluster: Node, address: str
) -> None:
    names = ("deployment/open-autoglm-gateway", "deployment/open-autoglm-operator")
    with traffic(asks(address)) as result:
        result.wait_served(20)
        cluster.kubectl("rollout", "restart", "-n", SYSTEM, *names)
        for name in names:
            cluster.kubectl("rollout", "status", "-n", SYSTEM, name, "--timeout=300s")
        result.wait_served(20)
    assert result.failures == []


def test_an_image_that_is_not_there_is_named_and_disturbs_nobody(
    model: str, cluster: Node, address: str
) -> None:
    image = "open-autoglm:no-such-tag"
    with traffic(asks(address)) as result:
        patch(cluster, {"engine": {"image": image}})
        eventually(lambda: image in failure(cluster), 60, "the image is named")
        result.wait_served(20)
        patch(cluster, {"engine": {"image": None}})
        wait_ready(cluster)
    assert result.failures == []


def failure(cluster: Node) -> str:
    status = cluster.get("agd", "echo").get("status", {})
    return json.dumps(status.get("model", {}).get("lastFailure", {}))


@pytest.mark.timeout(900)
def test_load_scales_up_by_the_real_autoscaler_and_back(
    model: str, cluster: Node, address: str
) -> None:
    fast = {"stabilizationWindowSeconds": 0}
    scaling = {
        "minReplicas": 1,
        "maxReplicas": 3,
        "metrics": [{"type": "CPU", "target": 50}],
        "behavior": {"scaleUp": fast, "scaleDown": fast},
    }
    # An idle pod answers probes and load streams with a tenth of it.
    requests = {"requests": {"cpu": "200m"}}
    patch(cluster, {"scaling": scaling, "resources": requests})
    eventually(lambda: len(pods(cluster)) == 1, 180, "one replica is enough without load")
    with traffic(asks(address) * 2) as result:
        eventually(lambda: sum(pods(cluster).values()) == 3, 240, "three replicas under load")
    eventually(lambda: len(pods(cluster)) == 1, 240, "one replica after the load")
    assert result.failures == []


def test_uninstalling_leaves_nothing_behind(model: str, cluster: Node) -> None:
    cluster.kubectl("delete", "agd", "--all", "--timeout=60s")
    kinds = "deployments,services,pods,configmaps,serviceaccounts,hpa,pdb,networkpolicies"
    ours = ("get", kinds, "-A", "-l", "app.kubernetes.io/name=open-autoglm", "-o", "name")
    inference = (*ours[:-2], "-o", "name", "-l", "app.kubernetes.io/component=inference")
    eventually(lambda: not cluster.kubectl(*inference).strip(), 90, "the model is gone")

    cluster.helm("uninstall", "open-autoglm", "-n", SYSTEM, "--wait")

    eventually(lambda: not cluster.kubectl(*ours).strip(), 90, "nothing of ours is there")
    assert "autoglm.io" not in cluster.kubectl("get", "crd", "-o", "name")
    rights = cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
    assert "autoglm" not in rights
