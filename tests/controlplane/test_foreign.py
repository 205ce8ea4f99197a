"""Other projects' own definitions take what operator and chart write for them, and what our
documents require: KEDA, the Prometheus operator, cert-manager, Gateway API and its Inference
Extension.

The definitions are in place during these tests only, since an operator uses them where they are.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.fake_cluster import NOW
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.daemon import ClusterFailed
from tests.support.kube.programs import program
from tests.support.operating import Cluster, until
from tests.support.prerequisites import lacking
from tests.support.resources import GOOD

from autoglm.api import parse
from autoglm.kube.client import Client, configure
from autoglm.kube.kinds import OPTIONAL_CHILDREN, RESOURCE
from autoglm.kube.transport import MERGE
from autoglm.operator.plan import plan
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import ObservedObjects
from autoglm.operator.writes.diff import differs

ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / "build/crds"
OWN = ROOT / "deploy/crds/autoglm.io_autoglmdeployments.yaml"
CHART = ROOT / "deploy/helm/open-autoglm"
MONITOR, SCALED_OBJECT = OPTIONAL_CHILDREN
KINDS = frozenset(kind.kind for kind in OPTIONAL_CHILDREN)
KEDA = {
    "actuator": "keda",
    "minReplicas": 1,
    "maxReplicas": 3,
    "metrics": [{"type": "CPU", "target": 70.0}, {"type": "QueueDepth", "target": 4.0}],
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
}
DATA_PLANES = ROOT / "docs/data-planes.md"
WAYS_IN = ROOT / "docs/gateway-on-kubernetes.md"
WAYS_IN_KINDS = {"Ingress", "HTTPRoute", "GRPCRoute", "Certificate"}
SPECS: dict[str, Any] = {case.name: dict(case.spec) for case in GOOD} | {
    "keda": {"model": {"uri": "a/b"}, "scaling": KEDA},
}


@pytest.fixture(scope="module")
def foreign(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    files = sorted(FOREIGN.glob("*.yaml"))
    if not files:
        lacking(f"no definitions in {FOREIGN}: run scripts/foreign_crds (needs Go 1.26)")
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(OWN))
    named = [argument for file in files for argument in ("-f", str(file))]
    control_plane.kubectl("apply", "--server-side", *named)
    control_plane.kubectl("wait", "--for=condition=Established", *named, "--timeout=60s")
    yield control_plane
    control_plane.kubectl("delete", *named, "--timeout=60s")


def taken(cluster: ControlPlane, *bodies: Any) -> list[dict[str, Any]]:
    """As the API server would keep them; every unknown or wrong field is refused."""
    output = cluster.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "json"),
        *("-f", "-"),
        text=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}),
    )
    kept = json.loads(output)
    # One object comes without a list around it.
    found: list[dict[str, Any]] = kept["items"] if kept["kind"] == "List" else [kept]
    return found


@pytest.mark.parametrize("case", SPECS)
def test_what_the_operator_writes_for_others_is_taken_and_kept(
    foreign: ControlPlane, namespace: str, case: str
) -> None:
    metadata = {"name": "m", "namespace": namespace, "uid": "uid-m"}
    document = {
        "apiVersion": RESOURCE.api_version,
        "kind": RESOURCE.kind,
        "metadata": metadata,
        "spec": SPECS[case],
    }
    parse(document)
    settings = OperatorSettings(allow_host_path=True)
    made = plan(ObservedObjects(document, optional_kinds=KINDS), settings, NOW)
    bodies = [dict(body) for body in made.apply if body["kind"] in KINDS]
    assert [body["kind"] for body in bodies][-1] == MONITOR.kind

    kept = taken(foreign, *bodies)

    assert [b["kind"] for b, k in zip(bodies, kept, strict=True) if differs(b, k)] == []


@pytest.mark.parametrize("values", ["values-production.yaml", "values-gpu.yaml"])
def test_what_the_chart_writes_for_others_is_taken(
    foreign: ControlPlane, namespace: str, values: str
) -> None:
    command = [program("helm"), "template", "one", str(CHART), "--namespace", namespace]
    flags = ["--set=monitoring.rules.enabled=true,monitoring.podMonitors.enabled=true"]
    done = subprocess.run(
        [*command, "--values", str(CHART / values), *flags],
        capture_output=True,
        text=True,
        check=True,
    )
    documents = [d for d in yaml.safe_load_all(done.stdout) if d]
    bodies = [d for d in documents if d["apiVersion"].startswith("monitoring.coreos.com/")]
    assert {body["kind"] for body in bodies} == {"PodMonitor", "PrometheusRule"}

    assert len(taken(foreign, *bodies)) == len(bodies)


def test_what_the_chart_writes_for_ways_into_the_cluster_is_taken_and_kept(
    foreign: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """With the values that docs/gateway-on-kubernetes.md shows."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", WAYS_IN.read_text(), re.MULTILINE | re.DOTALL)
    values = [block for block in blocks if block.startswith("gateway:")]
    files = [tmp_path / f"{index}.yaml" for index in range(len(values))]
    for file, text in zip(files, values, strict=True):
        file.write_text(text)
    command = [program("helm"), "template", "one", str(CHART), "--namespace", namespace]
    flags = [part for file in files for part in ("--values", str(file))]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
    documents = [d for d in yaml.safe_load_all(done.stdout) if d]
    bodies = [d for d in documents if d["kind"] in WAYS_IN_KINDS]
    assert {body["kind"] for body in bodies} == WAYS_IN_KINDS

    kept = taken(foreign, *bodies)

    assert [b["kind"] for b, k in zip(bodies, kept, strict=True) if differs(b, k)] == []


def shown() -> dict[str, dict[str, Any]]:
    """The objects in docs/data-planes.md, by kind and name."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", DATA_PLANES.read_text(), re.MULTILINE | re.DOTALL)
    documents = [document for block in blocks for document in yaml.safe_load_all(block)]
    bodies = [document for document in documents if "apiVersion" in document]
    return {f"{body['kind']}/{body['metadata']['name']}": body for body in bodies}


def shown_in(namespace: str) -> list[dict[str, Any]]:
    bodies = copy.deepcopy(list(shown().values()))
    for body in bodies:
        body["metadata"]["namespace"] = namespace
    return bodies


def test_what_the_document_shows_for_another_gateway_is_taken(
    foreign: ControlPlane, namespace: str
) -> None:
    bodies = shown_in(namespace)
    kinds = [body["kind"] for body in bodies]
    assert kinds == ["InferencePool", "InferencePool", "HTTPRoute", "NetworkPolicy"]

    kept = taken(foreign, *bodies)

    assert [b["kind"] for b, k in zip(bodies, kept, strict=True) if differs(b, k)] == []


def test_a_wrong_field_in_any_of_it_would_be_refused(foreign: ControlPlane, namespace: str) -> None:
    for body in shown_in(namespace):
        body["spec"]["misspelt"] = 1
        with pytest.raises(ClusterFailed, match='unknown field "(spec.)?misspelt"'):
            taken(foreign, body)


@pytest.fixture
async def cluster(foreign: ControlPlane, namespace: str) -> AsyncIterator[Cluster]:
    configuration = await configure(str(foreign.kubeconfig), "")
    client = Client(configuration, "tests")
    cluster = Cluster(configuration, client, namespace)
    yield cluster
    await cluster.stop_all()
    await client.close()


async def test_an_operator_makes_them_repairs_them_and_is_at_rest(cluster: Cluster) -> None:
    running = await cluster.start()
    await cluster.create("glm", scaling=KEDA)
    await cluster.settled("glm")
    before = {kind: await cluster.get(kind, "glm") for kind in OPTIONAL_CHILDREN}
    assert None not in before.values()

    for kind in OPTIONAL_CHILDREN:
        await cluster.send("DELETE", kind.path(cluster.namespace, "glm"))

    async def is_repaired() -> bool:
        return all([await cluster.get(kind, "glm") is not None for kind in OPTIONAL_CHILDREN])

    await until(is_repaired, "ScaledObject and PodMonitor are there again")
    await cluster.settled("glm")
    writes = len(running.writes)
    await until(lambda: cluster.is_settled("glm"), "rest")
    assert len(running.writes) == writes


@pytest.mark.parametrize(
    ("ready", "told"),
    [
        ({"status": "False", "reason": "TriggerError", "message": "x"}, "False TriggerError"),
        ({"status": "True", "reason": "ScaledObjectReady"}, "True Active"),
    ],
)
async def test_what_keda_says_of_itself_is_passed_on(
    cluster: Cluster, ready: dict[str, str], told: str
) -> None:
    await cluster.start()
    await cluster.create("glm", scaling=KEDA)

    async def says(what: str) -> bool:
        status = (await cluster.resource("glm")).get("status") or {}
        said = {c["type"]: f"{c['status']} {c['reason']}" for c in status.get("conditions", ())}
        return said.get("ScalingActive") == what

    await until(lambda: says("Unknown Starting"), "nobody has looked")
    path = SCALED_OBJECT.path(cluster.namespace, "glm", "status")
    body = {"status": {"conditions": [{"type": "Ready", **ready}]}}
    await cluster.send("PATCH", path, body, content_type=MERGE)

    await until(lambda: says(told), told)
