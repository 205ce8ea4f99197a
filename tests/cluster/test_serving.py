"""The whole product on real nodes: chart, operator, gateway, and pods that serve under change.

The echo engine serves here, since it starts in a second; test_vllm.py has vLLM.
"""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kube import product
from tests.support.kube.node import Node
from tests.support.kube.product import SYSTEM, Model
from tests.support.processes import eventually
from tests.support.traffic import Send, traffic

from autoglm.client import Client

MANIFEST = Path(__file__).parents[2] / "examples/echo.yaml"
PROMPT = "one two three"


@pytest.fixture(scope="module")
def model(cluster: Node) -> Iterator[Model]:
    """A served model: what a user applies."""
    cluster.kubectl("apply", "-f", str(MANIFEST))
    model = Model(cluster, "echo")
    model.wait_ready()
    yield model
    # Its definition is gone where the test of uninstalling has passed.
    if "agd" in cluster.kubectl("api-resources", "--api-group=autoglm.io"):
        cluster.kubectl("delete", "agd", "--all", "--timeout=60s")


def senders(address: str) -> list[Send]:
    """Clients that try once: what fails, fails."""

    def grpc() -> None:
        with Client(f"{address}:50051") as client:
            assert client.generate(PROMPT, model="echo", timeout=30).completions[0].text

    def stream() -> None:
        with Client(f"{address}:50051") as client:
            chunks = client.generate_stream(PROMPT, model="echo", timeout=30)
            assert "".join(c.text for c in chunks)

    def rest() -> None:
        assert "one" in product.chat(address, "echo", PROMPT)

    return [grpc, stream, rest]


def test_an_applied_model_responds_through_the_gateways_service(model: Model, address: str) -> None:
    for send in senders(address):
        send()


def test_the_charts_own_test_passes(model: Model, cluster: Node) -> None:
    assert re.search(r"Phase:\s+Succeeded", cluster.helm("test", "-n", SYSTEM, "open-autoglm"))


def test_a_rolling_update_fails_no_request(model: Model, address: str) -> None:
    before = model.pod_names()
    with traffic(senders(address)) as result:
        result.wait_served(20)
        model.patch({"model": {"maxModelLen": 4096}})
        model.wait_ready()
        result.wait_served(20)
    assert result.failures == []
    assert before.isdisjoint(model.pod_names())


def test_draining_one_node_after_the_other_fails_no_request(
    model: Model, cluster: Node, address: str
) -> None:
    nodes = [n["metadata"]["name"] for n in cluster.get("nodes")["items"]]
    flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=240s")
    with traffic(senders(address)) as result:
        for name in nodes:
            result.wait_served(20)
            cluster.kubectl("drain", name, *flags)
            eventually(lambda: model.ready() == [True, True], 120, "both are back")
            cluster.kubectl("uncordon", name)
        model.wait_ready()
        result.wait_served(20)
    assert result.failures == []


def test_a_restart_of_gateways_and_operators_fails_no_request(
    model: Model, cluster: Node, address: str
) -> None:
    names = ("deployment/open-autoglm-gateway", "deployment/open-autoglm-operator")
    with traffic(senders(address)) as result:
        result.wait_served(20)
        cluster.kubectl("rollout", "restart", "-n", SYSTEM, *names)
        for name in names:
            cluster.kubectl("rollout", "status", "-n", SYSTEM, name, "--timeout=300s")
        result.wait_served(20)
    assert result.failures == []


def test_an_image_that_is_not_there_is_named_and_disturbs_none(model: Model, address: str) -> None:
    image = "open-autoglm:no-such-tag"
    with traffic(senders(address)) as result:
        model.patch({"engine": {"image": image}})
        eventually(lambda: image in model.last_failure(), 60, "the image is named")
        result.wait_served(20)
        model.patch({"engine": {"image": None}})
        model.wait_ready()
    assert result.failures == []


def test_an_upgrade_fails_no_request_and_leaves_nothing_of_the_old(
    model: Model, cluster: Node, address: str
) -> None:
    """The operator's new version brings new pods of the models, too."""
    cluster.tag_image("docker.io/library/open-autoglm:0.1.0", "docker.io/library/open-autoglm:next")
    with traffic(senders(address)) as result:
        result.wait_served(20)
        product.upgrade(cluster, "--set", "image.tag=next")
        eventually(lambda: images(model) == {"open-autoglm:next"}, 180, "pods of the new version")
        model.wait_ready()
        result.wait_served(20)
    assert result.failures == []
    of_model = ("deployments,replicasets", "-l", "autoglm.io/deployment=echo")
    eventually(lambda: len(cluster.get(*of_model)["items"]) == 2, 60, "one of each is left")


def test_the_other_data_plane_and_back_fails_no_request(
    model: Model, cluster: Node, address: str
) -> None:
    planes = set()

    def rest() -> None:
        planes.add(plane(address))

    with traffic([*senders(address), rest]) as result:
        result.wait_served(20)
        for name in ("envoy", "embedded"):
            flags = ("--set", "image.tag=next", "--set", f"gateway.dataPlane={name}")
            product.upgrade(cluster, *flags)
            planes.clear()
            result.wait_served(20)
            assert ("envoy" if name == "envoy" else "") in planes
    assert result.failures == []


def plane(address: str) -> str:
    """What moved the bytes of a response; empty for the gateway itself."""
    body = json.dumps({"model": "echo", "prompt": PROMPT}).encode()
    url = f"http://{address}:8000/v1/completions"
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        response.read()
    return str(response.headers.get("x-autoglm-data-plane", "")).partition(";")[0]


def images(model: Model) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in model.pods()}


def test_load_scales_up_by_the_real_autoscaler_and_back(model: Model, address: str) -> None:
    fast = {"stabilizationWindowSeconds": 0}
    scaling = {
        "minReplicas": 1,
        "maxReplicas": 3,
        "metrics": [{"type": "CPU", "target": 50}],
        "behavior": {"scaleUp": fast, "scaleDown": fast},
    }
    # An idle pod serves probes and load streams with a tenth of it.
    requests = {"requests": {"cpu": "200m"}}
    model.patch({"scaling": scaling, "resources": requests})
    eventually(lambda: len(model.pods()) == 1, 180, "one replica is enough without load")
    with traffic(senders(address) * 2) as result:
        eventually(lambda: model.ready() == [True] * 3, 240, "three replicas under load")
    eventually(lambda: len(model.pods()) == 1, 240, "one replica after the load")
    assert result.failures == []


def test_uninstalling_leaves_nothing_behind(model: Model, cluster: Node) -> None:
    cluster.kubectl("delete", "agd", "--all", "--timeout=60s")
    kinds = "deployments,services,pods,configmaps,serviceaccounts,hpa,pdb,networkpolicies"
    ours = ("get", kinds, "-A", "-o", "name", "-l", "app.kubernetes.io/name=open-autoglm")
    of_models = (*ours[:-1], f"{ours[-1]},app.kubernetes.io/component=inference")
    eventually(lambda: not cluster.kubectl(*of_models).strip(), 90, "the model is gone")

    cluster.helm("uninstall", "open-autoglm", "-n", SYSTEM, "--wait")

    eventually(lambda: not cluster.kubectl(*ours).strip(), 90, "nothing of ours is there")
    assert "autoglm.io" not in cluster.kubectl("get", "crd", "-o", "name")
    rights = cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
    assert "autoglm" not in rights
