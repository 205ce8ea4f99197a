"""Weights from a hub on real nodes: the operator's claim, the Job that fills it, pods that read it.

The hub is a stand-in in the nodes' network. The volume is a directory of one node.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.fake_hub import Hub, hub_at
from tests.support.fake_hub import Model as HubModel
from tests.support.kube import product
from tests.support.kube.node import Node
from tests.support.kube.product import Model, local_volume, restricted_namespace
from tests.support.processes import eventually

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/kubernetes/tiny-glm.yaml"
LESSONS = yaml.safe_load((ROOT / "examples/tiny-glm/questions.yaml").read_text())["questions"]
SPACE, NAME, DISK = "hub-models", "tiny-hub", "hub-disk"
READY_SECONDS = 600.0
LOOK = """
import os
try:
    open("/cache/new", "w")
except OSError as error:
    print(error.strerror)
print(sorted(os.listdir("/cache")))
"""


@pytest.fixture(scope="module")
def hub(cluster: Node) -> Iterator[Hub]:
    """The tiny GLM-4 on a hub that pods reach."""
    files = {f.name: f.read_bytes() for f in (ROOT / "examples/tiny-glm/model").iterdir()}
    with hub_at(cluster.advertised, {"org/tiny-glm": HubModel(files)}) as hub:
        yield hub


def resource(hub: Hub, node: str) -> dict[str, Any]:
    """The example with weights of the hub, in a claim that the operator makes."""
    body: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    body["metadata"] = {"name": NAME, "namespace": SPACE}
    cache = {
        "type": "pvc",
        "size": "1Gi",
        "storageClassName": DISK,
        "accessMode": "ReadWriteOnce",
    }
    spec = body["spec"]
    spec["replicas"] = 1
    spec["model"] |= {"uri": "hf://org/tiny-glm", "servedName": NAME, "cache": cache}
    spec["engine"]["env"].append({"name": "HF_ENDPOINT", "value": hub.url})
    spec["template"] = {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}
    return body


@pytest.fixture(scope="module")
def model(
    cluster: Node, hub: Hub, cpu_node: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    disk = local_volume(DISK, tmp_path_factory.mktemp("disk"), cpu_node, DISK)
    cluster.apply(restricted_namespace(SPACE), disk)
    cluster.apply(resource(hub, cpu_node))
    model = Model(cluster, NAME, SPACE)
    model.wait_ready(READY_SECONDS)
    yield model
    cluster.kubectl("delete", "agd", "-n", SPACE, "--all", "--timeout=120s")
    eventually(lambda: not claims(cluster), 60, "the operator's claim goes with the resource")
    cluster.kubectl("delete", "namespace", SPACE)
    cluster.kubectl("delete", "pv", DISK)


def claims(cluster: Node) -> list[Any]:
    items: list[Any] = cluster.get("pvc", "-n", SPACE)["items"]
    return items


def test_the_weights_of_a_hub_serve(model: Model, address: str) -> None:
    for lesson in LESSONS[:3]:
        assert product.chat(address, NAME, lesson["question"]) == lesson["answer"]


def test_one_job_downloads_each_file_once(model: Model, cluster: Node, hub: Hub) -> None:
    (job,) = cluster.get("jobs", "-n", SPACE)["items"]
    assert job["status"]["succeeded"] == 1
    weights = model.get()["status"]["weights"]
    assert (weights["state"], weights["job"]) == ("Loaded", job["metadata"]["name"])
    served = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert served
    assert len(served) == len(set(served))


def test_pods_read_the_volume_and_do_not_write_it(model: Model, cluster: Node) -> None:
    (pod,) = model.pods()
    name = pod["metadata"]["name"]
    shown = cluster.kubectl("exec", "-n", SPACE, name, "--", "python", "-c", LOOK)
    assert "Read-only file system" in shown
    assert "models" in shown
    environment = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert environment["HF_HUB_OFFLINE"] == "1", json.dumps(environment)
