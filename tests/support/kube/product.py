"""Open-AutoGLM installed by its chart on real nodes, and what tests want to know of it there.

`installed` is the whole product; `Model` one applied AutoGLMDeployment.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.kube.node import Node
from tests.support.processes import eventually

SYSTEM = "autoglm-system"
RELEASE = "open-autoglm"
IMAGE = "open-autoglm:0.1.0"
CPU_IMAGE = "open-autoglm-inference:0.1.0-cpu"
_ROOT = Path(__file__).parents[3]
_CHART = (RELEASE, str(_ROOT / "deploy/helm/open-autoglm"), "-n", SYSTEM)
_FLAGS = (
    *("--wait", "--timeout", "180s", "--set", "crds.keep=false"),
    *("--set", "inferenceImage.tag=0.1.0-cpu"),
    # Two gateways, two operators and the models share a small machine.
    *("--set", "gateway.resources.requests.cpu=50m"),
    *("--set", "operator.resources.requests.cpu=50m"),
)


@dataclass(frozen=True, slots=True)
class Model:
    """An AutoGLMDeployment."""

    node: Node
    name: str
    namespace: str = "default"

    def get(self) -> dict[str, Any]:
        return self.node.get("agd", self.name, "-n", self.namespace)

    def patch(self, spec: object) -> None:
        """A merge patch of the spec."""
        text = json.dumps({"spec": spec})
        patch = ("patch", "agd", self.name, "-n", self.namespace, "--type=merge", "-p", text)
        self.node.kubectl(*patch)

    def wait_ready(self, seconds: float = 120) -> None:
        """Until the newest spec is what runs."""
        eventually(self._is_ready, seconds, f"{self.name} is ready")

    def pods(self) -> list[dict[str, Any]]:
        """Replicas that are not ending."""
        labels = f"autoglm.io/deployment={self.name},app.kubernetes.io/component=inference"
        chosen = ("-n", self.namespace, "-l", labels)
        found = self.node.get("pods", *chosen)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod_names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods()}

    def ready(self) -> list[bool]:
        """Of every pod that is not ending."""
        return [is_ready(pod) for pod in self.pods()]

    def last_failure(self) -> str:
        return json.dumps(self.get().get("status", {}).get("model", {}).get("lastFailure", {}))

    def progress(self) -> str:
        """Return what the start of a replica does, by the status."""
        model = self.get().get("status", {}).get("model", {})
        return str(model.get("progress", ""))

    def _is_ready(self) -> bool:
        found = self.get()
        status = found.get("status", {})
        newest = status.get("observedGeneration") == found["metadata"]["generation"]
        return bool(newest and status.get("phase") == "Ready")


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def restricted_namespace(name: str) -> dict[str, Any]:
    """Return a namespace that enforces the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def local_volume(name: str, directory: Path, node: str, storage_class: str = "") -> dict[str, Any]:
    """Return a directory of one node as a volume for a claim of this class."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "local": {"path": str(directory)},
            "nodeAffinity": {
                "required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]},
            },
        },
    }


@contextlib.contextmanager
def installed(node: Node) -> Iterator[Node]:
    """By the chart, in a namespace that enforces the restricted standard; this thread is inside."""
    node.apply(restricted_namespace(SYSTEM))
    node.helm("install", *_CHART, *_FLAGS)
    try:
        with node.entered():
            yield node
    finally:
        node.helm("uninstall", RELEASE, "-n", SYSTEM, "--wait", "--ignore-not-found")


def upgrade(node: Node, *flags: str) -> None:
    """To other values, and waits for gateway and operator."""
    node.helm("upgrade", *_CHART, *_FLAGS, *flags)


def gateway_address(node: Node) -> str:
    """Of its Service."""
    path = "jsonpath={.spec.clusterIP}"
    return node.kubectl("get", "service", "-n", SYSTEM, f"{RELEASE}-gateway", "-o", path)


def chat(address: str, model: str, question: str) -> str:
    """The response of the gateway at this address over REST, greedily."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 200,
    }
    request = urllib.request.Request(
        f"http://{address}:8000/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        content: str = json.load(response)["choices"][0]["message"]["content"]
    return content
