"""A real API server takes the CRD, and says of each resource what `api.parse` says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.daemon import ClusterFailed
from tests.support.processes import eventually
from tests.support.resources import BAD, GOOD, Case

from autoglm.api import API_VERSION, GROUP, VERSION, parse
from autoglm.api.labels import PLURAL
from autoglm.api.profile import PROFILE_KIND
from autoglm.api.rules import at

ROOT = Path(__file__).parents[2]
CRD = ROOT / "deploy/crds/autoglm.io_autoglmdeployments.yaml"
PROFILE_CRD = ROOT / "deploy/crds/autoglm.io_autoglmprofiles.yaml"
PROFILES = ROOT / "deploy/kustomize/profiles"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml")) + sorted(ROOT.glob("examples/catalog/*.yaml"))
EXAMPLES.append(ROOT / "examples/kubernetes/tiny-glm.yaml")
Create = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    for path in (CRD, PROFILE_CRD):
        install(control_plane, yaml.safe_load(path.read_text()))
    return control_plane


@pytest.fixture(scope="module")
def tried(cluster: ControlPlane) -> Iterator[Create]:
    """What the API server would keep; nothing is."""
    with cluster.client() as api:
        objects = client.CustomObjectsApi(api)

        def create(document: dict[str, Any]) -> dict[str, Any]:
            kept: Any = objects.create_namespaced_custom_object(
                *(GROUP, VERSION, "default", PLURAL, document),
                dry_run="All",
                field_validation="Strict",
            )
            return dict(kept)

        yield create


def test_the_crd_is_accepted_without_remarks(cluster: ControlPlane) -> None:
    crd = cluster.get("crd", f"{PLURAL}.{GROUP}")

    conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_a_good_spec_is_kept_and_means_the_same_with_its_defaults(
    tried: Create, case: Case
) -> None:
    document = case.document()

    assert parse(tried(document)).spec == parse(document).spec


@pytest.mark.parametrize(
    "case", [c for c in BAD if "apiserver" in c.judges], ids=lambda case: case.name
)
def test_a_bad_spec_is_refused_with_its_reason(tried: Create, case: Case) -> None:
    with pytest.raises(ApiException) as raised:
        tried(case.document())

    assert raised.value.status in (400, 422)
    assert (case.problem or "") in json.loads(raised.value.body or "")["message"]


@pytest.mark.parametrize("case", [c for c in BAD if "apiserver" not in c.judges], ids=repr)
def test_what_only_the_operator_can_check_passes(tried: Create, case: Case) -> None:
    assert tried(case.document())["spec"]


def test_every_rule_of_the_crd_refuses_something(tried: Create) -> None:
    said = [refusal(tried, case) for case in BAD if "apiserver" in case.judges]

    silent = [rule for rule in rules_of(schema()) if not any(rule in text for text in said)]
    # Creating changes nothing; test_the_served_name_stays and test_weights do.
    transitions = [
        f"{name} can't" for name in ("servedName", "size", "storageClassName", "accessMode")
    ]
    left = [rule for rule in silent if not any(each in rule for each in transitions)]
    assert left == []
    assert len(silent) == len(transitions)


def refusal(tried: Create, case: Case) -> str:
    with pytest.raises(ApiException) as raised:
        tried(case.document())
    return str(json.loads(raised.value.body or "")["message"])


def schema() -> dict[str, Any]:
    crd: dict[str, Any] = yaml.safe_load(CRD.read_text())
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def rules_of(node: dict[str, Any]) -> Iterator[str]:
    """The messages of all rules."""
    yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
    for member in node.get("properties", {}).values():
        yield from rules_of(member)
    if "items" in node:
        yield from rules_of(node["items"])


def defaults_of(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Of all fields that hold no further fields."""
    for name, member in node.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        if "properties" in member:
            yield from defaults_of(member, below)
        elif "default" in member:
            yield below, member["default"]


def test_every_default_of_the_crd_is_kept(tried: Create) -> None:
    optional: dict[str, Any] = {"hedging": {}, "outlierDetection": {}, "streamRecovery": {}}
    spec = {"model": {"uri": "a/b"}, "scaling": {"maxReplicas": 3}, "routing": optional}
    spec["profile"] = {"name": "l4"}

    kept = tried(Case("", spec).document())["spec"]

    wanted = dict(defaults_of(schema()["properties"]["spec"]))
    assert {path: at(kept, path) for path in wanted} == wanted
    assert len(wanted) > 20


def test_the_defaults_of_the_least_resource(tried: Create) -> None:
    assert tried(GOOD[0].document())["spec"] == {
        "model": {"uri": "org/model", "cache": {"type": "emptyDir"}},
        "engine": {
            "type": "vllm",
            "parallelism": {"pipeline": 1, "data": 1},
            "sharedMemory": "2Gi",
        },
        "replicas": 1,
        "startup": {"stallSeconds": 600},
        "rollout": {"strategy": "RollingUpdate"},
        "drain": {"gracePeriodSeconds": 30.0},
        "network": {"policy": "Strict"},
        "observability": {"tracing": {"sampleRatio": 1.0}, "podMonitor": True},
        "suspend": False,
    }


def test_scaling_has_defaults_of_its_own(tried: Create) -> None:
    document = Case("", {"model": {"uri": "a/b"}, "scaling": {"maxReplicas": 3}}).document()

    assert tried(document)["spec"]["scaling"] == {
        "minReplicas": 1,
        "maxReplicas": 3,
        "metrics": [{"type": "CPU", "target": 80}],
        "actuator": "hpa",
    }


@pytest.mark.parametrize("name", ["Upper", "1st", "a.b", "a" * 53])
def test_a_name_that_children_can_not_have_is_refused(tried: Create, name: str) -> None:
    with pytest.raises(ApiException) as raised:
        tried(GOOD[0].document(name))

    assert "metadata.name" in (raised.value.body or "")


@pytest.mark.parametrize(
    ("before", "after"), [(None, "new"), ("old", "new"), ("old", None)], ids=repr
)
def test_the_served_name_stays(
    cluster: ControlPlane, namespace: str, before: str | None, after: str | None
) -> None:
    document = Case("", {"model": {"uri": "a/b", "servedName": before}}).document()
    if before is None:
        del document["spec"]["model"]["servedName"]
    cluster.kubectl("create", "-n", namespace, "-f", "-", text=json.dumps(document))

    patch = json.dumps({"spec": {"model": {"servedName": after}}})
    with pytest.raises(ClusterFailed, match="servedName can't change, since clients depend on it"):
        cluster.kubectl("patch", "agd", "case", "-n", namespace, "--type=merge", "-p", patch)


def test_the_served_name_may_be_written_out(cluster: ControlPlane, namespace: str) -> None:
    document = json.dumps(GOOD[0].document())
    cluster.kubectl("create", "-n", namespace, "-f", "-", text=document)

    patch = '{"spec": {"model": {"servedName": "case"}}}'
    cluster.kubectl("patch", "agd", "case", "-n", namespace, "--type=merge", "-p", patch)


def test_kubectl_shows_what_matters(cluster: ControlPlane, namespace: str) -> None:
    spec = {"model": {"uri": "a/b", "quantization": {"method": "fp8"}}, "replicas": 2}
    create(cluster, namespace, spec)
    status = {
        "phase": "Updating",
        "model": {"source": "a/b"},
        "replicas": 2,
        "readyReplicas": 1,
        "url": "http://gateway:8080",
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "ImagePullBackOff",
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    report(cluster, namespace, status)

    header, row = cluster.kubectl("get", "agd", "-n", namespace).splitlines()
    wide_header, wide = cluster.kubectl("get", "ml", "-o", "wide", "-n", namespace).splitlines()

    assert header.split() == ["NAME", "MODEL", "QUANT", "DESIRED", "READY", "PHASE", "AGE"]
    assert row.split()[:-1] == ["case", "a/b", "fp8", "2", "1", "Updating"]
    assert wide_header.split()[-3:] == ["PROFILE", "REASON", "URL"]
    assert wide.split()[-2:] == ["ImagePullBackOff", "http://gateway:8080"]


def test_autoscalers_read_and_write_the_scale_subresource(
    cluster: ControlPlane, namespace: str
) -> None:
    create(cluster, namespace, {"model": {"uri": "a/b"}, "scaling": {"maxReplicas": 5}})
    report(cluster, namespace, {"replicas": 1, "selector": "autoglm.io/deployment=case"})

    cluster.kubectl("scale", "agd/case", "-n", namespace, "--replicas=4")

    path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/case/scale"
    scale = json.loads(cluster.kubectl("get", "--raw", path))
    assert scale["spec"] == {"replicas": 4}
    assert scale["status"] == {"replicas": 1, "selector": "autoglm.io/deployment=case"}


def test_the_status_is_written_through_its_subresource_only(
    cluster: ControlPlane, namespace: str
) -> None:
    create(cluster, namespace, {"model": {"uri": "a/b"}})
    report(cluster, namespace, {"phase": "Ready"})

    patch = '{"status": {"phase": "Failed"}, "spec": {"replicas": 2}}'
    cluster.kubectl("patch", "agd", "case", "-n", namespace, "--type=merge", "-p", patch)

    found = cluster.get("agd", "case", "-n", namespace)
    assert found["status"] == {"phase": "Ready"}
    assert found["metadata"]["generation"] == 2


def test_kubectl_explains_fields(cluster: ControlPlane) -> None:
    text = cluster.kubectl("explain", "agd.spec.model.servedName")

    assert "The model name in requests." in text


def test_profiles_are_listed_with_what_they_give_and_explained(cluster: ControlPlane) -> None:
    cluster.kubectl("apply", "--server-side", "-k", str(PROFILES))
    try:
        header, *rows = cluster.kubectl("get", "autoglmprofiles").splitlines()
        found = {row.split()[0]: row.split()[1:4] for row in rows}
    finally:
        cluster.kubectl("delete", "-k", str(PROFILES))

    assert header.split() == ["NAME", "GPUS", "CPU", "MEMORY", "AGE"]
    assert found["nvidia-l4"] == ["1", "4", "16Gi"]
    # `kubectl get` shows nothing for a field that is absent.
    assert found["cpu"][:2] == ["4", "8Gi"]
    text = cluster.kubectl("explain", "autoglmprofile.spec.nodeSelector")
    assert "Labels of the nodes." in text


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"engine": {"args": {"max-num-seqs": 1}}}, "set spec.engine.maxNumSeqs instead"),
        ({"engine": {"args": {"quantization": "fp8"}}}, "of the AutoGLMDeployment instead"),
        ({"resources": {"limits": {"memory": "much"}}}, "spec.resources.limits.memory"),
        ({"nodeselector": {}}, "nodeselector"),
    ],
)
def test_a_bad_profile_is_refused_with_its_reason(
    cluster: ControlPlane, spec: dict[str, Any], problem: str
) -> None:
    head = {"apiVersion": API_VERSION, "kind": PROFILE_KIND, "metadata": {"name": "bad"}}
    with pytest.raises(ClusterFailed, match=re.escape(problem)):
        text = json.dumps(head | {"spec": spec})
        cluster.kubectl("create", "--validate=strict", "--dry-run=server", "-f", "-", text=text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_taken(tried: Create, path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert parse(tried(document)).spec == parse(document).spec


def test_a_huge_resource_is_refused(tried: Create) -> None:
    spec = {"model": {"uri": "a/b"}, "template": {"x": "a" * 4_000_000}}

    with pytest.raises(ApiException):
        tried(Case("", spec).document())


def test_applying_the_crd_again_changes_nothing(cluster: ControlPlane) -> None:
    before = cluster.get("crd", f"{PLURAL}.{GROUP}")["metadata"]
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))

    after = cluster.get("crd", f"{PLURAL}.{GROUP}")["metadata"]
    assert (after["resourceVersion"], after["generation"]) == (
        before["resourceVersion"],
        before["generation"],
    )


def test_resources_outlive_an_upgrade_of_the_crd(cluster: ControlPlane, namespace: str) -> None:
    group = f"{namespace}.example.com"
    new = yaml.safe_load(CRD.read_text().replace(GROUP, group))
    old = yaml.safe_load(CRD.read_text().replace(GROUP, group))
    schema = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["x-kubernetes-validations"]
    spec = schema["properties"]["spec"]
    # Rules and fields that a later version brought.
    del spec["x-kubernetes-validations"]
    del spec["properties"]["model"]["properties"]["cache"]
    install(cluster, old)
    kind = f"{PLURAL}.{group}"
    # As it could be kept before there was a rule against it.
    document = Case("", {"model": {}}).document() | {"apiVersion": f"{group}/{VERSION}"}
    cluster.kubectl("create", "-n", namespace, "-f", "-", text=json.dumps(document))

    install(cluster, new)

    eventually(
        lambda: "cache" in cluster.get(kind, "case", "-n", namespace)["spec"]["model"],
        what="the new default",
    )
    change = ("patch", kind, "case", "-n", namespace, "--type=merge", "-p")
    # What was wrong before may stay, and what is changed must be right.
    cluster.kubectl(*change, '{"metadata": {"labels": {"a": "b"}}}')
    with pytest.raises(ClusterFailed, match="minReplicas is over maxReplicas"):
        cluster.kubectl(*change, '{"spec": {"scaling": {"minReplicas": 3, "maxReplicas": 2}}}')
    cluster.kubectl(*change, '{"spec": {"model": {"uri": "a/b"}}}')
    cluster.kubectl("delete", "crd", kind)


def install(cluster: ControlPlane, crd: dict[str, Any]) -> None:
    text = json.dumps(crd)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
    name = f"crd/{crd['metadata']['name']}"
    cluster.kubectl("wait", "--for=condition=Established", name, "--timeout=60s")


def create(cluster: ControlPlane, namespace: str, spec: dict[str, Any]) -> None:
    document = json.dumps(Case("", spec).document())
    cluster.kubectl("create", "-n", namespace, "-f", "-", text=document)


def report(cluster: ControlPlane, namespace: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    where = ("agd", "case", "-n", namespace, "--subresource=status", "--type=merge")
    cluster.kubectl("patch", *where, "-p", patch)
