from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from autoglm.api import AutoGLMDeployment, parse
from autoglm.api.crd.definition import crd
from autoglm.cli.precheck.cluster import checks
from autoglm.cli.precheck.facts import (
    DEPLOY_PERMISSIONS,
    INSPECT_PERMISSIONS,
    OPTIONAL_APIS,
    Facts,
    NotAccessible,
)
from autoglm.cli.precheck.machine import Machine
from autoglm.cli.precheck.machine import checks as local_checks
from autoglm.cli.precheck.model import Weights
from autoglm.cli.precheck.view import Check, precheck_text
from autoglm.cli.screen import Canvas
from autoglm.local.gpus import Gpus

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
NO = NotAccessible("forbidden")


def pod(name: str, gpus: int = 0) -> dict[str, Any]:
    container = {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container]}, "status": READY}


def node(gpus: int, **spec: Any) -> dict[str, Any]:
    return {"spec": spec, "status": READY | {"allocatable": {"nvidia.com/gpu": str(gpus)}}}


def storage_class(name: str) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {"metadata": {"name": name, "annotations": annotations}}


def claim(phase: str = "Bound", mode: str = "ReadWriteMany") -> dict[str, Any]:
    return {"spec": {"accessModes": [mode]}, "status": {"phase": phase}}


GOOD = Facts(
    version="v1.36.3",
    namespace_name="models",
    namespace={"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
    crd=crd(),
    has_api=True,
    operators=(pod("operator"),),
    gateways=(pod("gateway-1"), pod("gateway-2")),
    nodes=(node(8), node(2)),
    pods=(pod("other", 3),),
    storage_classes=(storage_class("fast"),),
    apis=frozenset(OPTIONAL_APIS),
)


def resource(**spec: Any) -> AutoGLMDeployment:
    return parse(
        {
            "apiVersion": "autoglm.io/v1alpha1",
            "kind": "AutoGLMDeployment",
            "metadata": {"name": "chat", "namespace": "models"},
            "spec": {"model": {"uri": "Qwen/Qwen3-8B"}, **spec},
        }
    )


def gpus(count: int) -> dict[str, Any]:
    return {"limits": {"nvidia.com/gpu": str(count)}}


def scaled(metric: str, actuator: str = "hpa") -> dict[str, Any]:
    return {"maxReplicas": 4, "metrics": [{"type": metric, "target": 5}], "actuator": actuator}


def named(found: Sequence[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


def test_a_good_cluster_as_users_see_it() -> None:
    found = checks(GOOD, [resource(resources=gpus(2), replicas=2)])
    assert precheck_text(found, Canvas()).splitlines()[1:] == [
        "ok  cluster            Kubernetes v1.36.3",
        "ok  CRD                v1alpha1, up to date",
        "ok  operator           1 of 1 pods ready",
        "ok  gateway            2 of 2 pods ready",
        "ok  namespace models   enforces Pod Security restricted; replicas comply with restricted",
        "ok  deploy permission  granted in models",
        "ok  manifest chat      accepted by the API server",
        "ok  nvidia.com/gpu     4 requested; 10 on ready nodes, 3 in use",
        "ok  metrics            scaling by CPU and memory is available",
        "ok  PodMonitor         available; Prometheus discovers the replicas",
        "ok  KEDA               installed",
        "",
        "All checks passed.",
    ]


def test_a_bare_cluster_says_what_to_do() -> None:
    bare = Facts(
        version="v1.29.1", namespace_name="models", denied=frozenset(INSPECT_PERMISSIONS[:1])
    )
    assert precheck_text(checks(bare, []), Canvas()).splitlines() == [
        "      CHECK              FOUND                                    WHAT TO DO",
        "fail  cluster            Kubernetes v1.29.1                       use Kubernetes "
        "1.30 or newer",
        "fail  CRD                AutoGLMDeployment is not installed       install "
        "Open-AutoGLM: helm install open-autoglm, or kubectl apply -k deploy/kustomize",
        "fail  operator           not installed                            install it: helm "
        "install open-autoglm, or kubectl apply -k deploy/kustomize",
        "fail  gateway            not installed                            install it: helm "
        "install open-autoglm, or kubectl apply -k deploy/kustomize",
        "fail  namespace models   does not exist                           kubectl create "
        "namespace models",
        "ok    deploy permission  granted in models",
        "warn  read permission    cannot list pods in models               without the "
        "permission `autoglm status` shows less",
        "warn  nvidia.com/gpu     none; models run on CPUs only            add GPU nodes "
        "with the vendor's device plugin",
        "warn  storage            no default StorageClass                  set a class in "
        "claims for model caches, or cache in emptyDir",
        "warn  metrics            no scaling by CPU or memory              install metrics-server",
        "ok    PodMonitor         no Prometheus operator; none is created",
        "ok    KEDA               not installed, not needed",
        "",
        "5 failed, 4 warnings",
    ]


@pytest.mark.parametrize(
    ("spec", "nodes", "outcome", "found"),
    [
        ({"resources": gpus(4)}, (node(2), node(2)), "fail", "no node has more than 2"),
        ({"resources": gpus(2), "replicas": 6}, GOOD.nodes, "fail", "12 requested; 10"),
        ({"resources": gpus(2), "replicas": 4}, GOOD.nodes, "warn", "8 requested; 10"),
        ({"resources": gpus(1)}, (node(8, unschedulable=True),), "fail", "none, 1 requested"),
        ({"engine": {"parallelism": {"tensor": 8}}}, (node(4),), "fail", "a replica needs 8"),
        ({"resources": gpus(1)}, NO, "warn", "forbidden to list nodes"),
    ],
)
def test_gpus_are_compared_with_requests(
    spec: dict[str, Any], nodes: Any, outcome: str, found: str
) -> None:
    check = named(checks(replace(GOOD, nodes=nodes), [resource(**spec)]), "nvidia.com/gpu")
    assert (check.outcome, found in check.found) == (outcome, True)


def test_gpus_at_the_autoscalers_limit_are_only_a_warning() -> None:
    wanted = resource(resources=gpus(4), scaling=scaled("CPU") | {"maxReplicas": 3})
    check = named(checks(GOOD, [wanted]), "nvidia.com/gpu")
    assert (check.outcome, "12 at maxReplicas" in check.found) == ("warn", True)


@pytest.mark.parametrize(
    ("facts", "name", "outcome", "found"),
    [
        ({"crd": NO}, "CRD", "warn", "forbidden to read"),
        ({"operators": NO}, "operator", "warn", "forbidden to list its pods"),
        ({"operators": ({"metadata": {}},)}, "operator", "fail", "none of 1 pods"),
        ({"namespace": NO}, "namespace models", "warn", "forbidden to read"),
        ({"namespace": {"metadata": {}}}, "namespace models", "ok", "enforces no"),
        (
            {"denied": frozenset(DEPLOY_PERMISSIONS[2:4])},
            "deploy permission",
            "fail",
            "cannot create autoglmdeployments, patch autoglmdeployments in models",
        ),
        ({"rejections": (("chat", "spec.x: no"),)}, "manifest chat", "fail", "spec.x: no"),
        ({"version": "v2.0.0"}, "cluster", "ok", "v2.0.0"),
    ],
)
def test_facts_are_judged(facts: dict[str, Any], name: str, outcome: str, found: str) -> None:
    check = named(checks(replace(GOOD, **facts), [resource()]), name)
    assert (check.outcome, found in check.found) == (outcome, True)


@pytest.mark.parametrize(
    ("live", "outcome", "found"),
    [(None, "warn", "unknown"), ("suspend", "fail", "spec.suspend missing")],
)
def test_crd_of_another_version_names_the_difference(
    live: str | None, outcome: str, found: str
) -> None:
    other = crd()
    fields = other["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    if live:
        fields["properties"] = {k: v for k, v in fields["properties"].items() if k != live}
    else:
        fields["properties"] = {**fields["properties"], "later": {"type": "string"}}
    check = named(checks(replace(GOOD, crd=other), []), "CRD")
    assert (check.outcome, found in check.found) == (outcome, True)


@pytest.mark.parametrize(
    ("claims", "outcome", "found"),
    [
        ({}, "fail", "not found"),
        ({"weights": NO}, "warn", "forbidden to read"),
        ({"weights": claim("Pending")}, "warn", "is Pending"),
        ({"weights": claim(mode="ReadWriteOnce")}, "warn", "2 replicas share it"),
        ({"weights": claim()}, "ok", "bound"),
    ],
)
def test_volume_of_the_manifest_must_be_there(
    claims: Mapping[str, Any], outcome: str, found: str
) -> None:
    model = {"uri": "x", "cache": {"type": "pvc", "claimName": "weights"}}
    wanted = resource(model=model, replicas=2)
    check = named(checks(replace(GOOD, claims=claims), [wanted]), "volume weights")
    assert (check.outcome, found in check.found) == (outcome, True)


@pytest.mark.parametrize(
    ("scaling", "name"),
    [
        (scaled("CPU"), "metrics"),
        (scaled("QueueDepth"), "custom metrics"),
        (scaled("QueueDepth", "keda"), "KEDA"),
    ],
)
def test_scaling_needs_what_it_reads(scaling: dict[str, Any], name: str) -> None:
    wanted = resource(scaling=scaling)
    assert named(checks(replace(GOOD, apis=frozenset()), [wanted]), name).outcome == "fail"
    assert all(c.outcome == "ok" for c in checks(GOOD, [wanted]))


def test_pod_security_and_a_directory_of_the_node_exclude_each_other() -> None:
    model = {"uri": "x", "cache": {"type": "hostPath", "path": "/models"}}
    check = named(checks(GOOD, [resource(model=model)]), "namespace models")
    assert (check.outcome, "hostPath" in check.found) == ("fail", True)


def test_path_of_this_machine_is_pointed_out() -> None:
    check = named(checks(GOOD, [resource(model={"uri": "./model"})]), "manifest chat")
    assert (check.outcome, "./model" in check.found) == ("warn", True)


MACHINE = Machine((3, 11), "vllm 0.32.0", (), 8 * 2**30)
GIB = 2**30
TWO_L4 = Gpus(("0", "1"), ("NVIDIA L4", "NVIDIA L4"))


def weights(**facts: Any) -> dict[str, Any]:
    return {"models": (Weights("a", "vllm", "org/x", **{"replicas": 1} | facts),)}


ON_L4 = {"gpus": TWO_L4, "gpu_gib": 22.5}


@pytest.mark.parametrize(
    ("change", "name", "outcome", "found"),
    [
        ({"python": (3, 10)}, "Python", "fail", "3.10"),
        ({"engine": ""}, "engine", "warn", "only the echo engine"),
        (
            {"engine": "", "models": (Weights("a", "vllm", "x", 1),)},
            "engine",
            "fail",
            "not installed",
        ),
        ({"busy": ("127.0.0.1:8080",)}, "ports", "fail", "127.0.0.1:8080"),
        ({"memory": None}, "memory", "warn", "unknown"),
        (weights(replicas=3, size=3 * GIB), "memory", "fail", "need 9.0 GiB"),
        (weights(size=7 * GIB, cache=2 * GIB), "memory", "fail", "need 9.0 GiB"),
        (weights(size=3 * GIB, cache=GIB), "memory", "ok", "at least 4.0 GiB needed"),
        (weights(problem="is gone"), "model a", "fail", "is gone"),
        (weights(warning="no hub"), "model a", "warn", "no hub"),
        (weights(size=GIB, missing=GIB, disk="x is full"), "disk a", "fail", "x is full"),
        (weights(size=GIB, missing=GIB), "model a", "ok", "1.0 GiB of files to download"),
        ({"models": (Weights("a", "echo", "", 1),)}, "model a", "ok", "no weights"),
        (ON_L4, "GPU", "ok", "2 x NVIDIA L4"),
        (weights(gpus=1, needs_gpu=True), "GPU", "fail", "none, and a requests 1"),
        (weights(gpus=1), "GPU", "ok", "run on the CPU"),
        (ON_L4 | weights(gpus=2, replicas=2, needs_gpu=True), "GPU", "fail", "this machine has 2"),
        (ON_L4 | weights(gpus=1, size=30 * GIB), "memory a", "fail", "32.0 GiB on each GPU"),
        (ON_L4 | weights(gpus=2, size=30 * GIB), "memory a", "ok", "17.0 GiB on each GPU"),
    ],
)
def test_machine_is_judged(change: dict[str, Any], name: str, outcome: str, found: str) -> None:
    check = named(local_checks(replace(MACHINE, **change)), name)
    assert (check.outcome, found in check.found) == (outcome, True)


def test_this_machine_can_be_checked(autoglm: Any, tmp_path: Any) -> None:
    (tmp_path / "m.yaml").write_text(
        "apiVersion: autoglm.io/v1alpha1\nkind: AutoGLMDeployment\nmetadata: {name: a}\n"
        "spec: {model: {uri: ./nothing}, engine: {type: vllm}}\n"
    )
    result = autoglm("precheck", "--local", "-f", str(tmp_path / "m.yaml"))
    assert result.code == 1
    assert f"'{tmp_path}/nothing' does not exist" in result.out
    assert "checking model a: ./nothing ..." in result.err.splitlines()


@pytest.mark.parametrize("args", [("-A",), ("--local", "-n", "models")])
def test_contradicting_options_are_wrong_usage(autoglm: Any, args: list[str]) -> None:
    assert autoglm("precheck", *args).code == 2


def test_invalid_manifest_is_reported_before_any_request(autoglm: Any, tmp_path: Any) -> None:
    (tmp_path / "m.yaml").write_text("kind: Pod\n")
    result = autoglm("precheck", "-f", str(tmp_path / "m.yaml"), "--kubeconfig", "/nowhere")
    assert (result.code, result.out) == (65, "")


def test_cluster_out_of_reach_is_a_failed_check(autoglm: Any) -> None:
    result = autoglm("precheck", "--kubeconfig", "/nowhere", "-o", "json")
    assert result.code == 1
    assert '"name": "cluster"' in result.out
