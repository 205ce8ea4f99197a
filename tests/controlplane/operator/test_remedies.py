"""A real API server and scheduler: what they refuse is reported with what mends it.

The texts of scheduler and admission are those of this version of Kubernetes, so that a remedy that
no longer recognizes them is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.kube.controlplane import HOLD, ControlPlane
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import CHILDREN, POD, RESOURCE, Kind
from autoglm.kube.transport import MERGE

DEPLOYMENT, _, _, _, _, _, POLICY = CHILDREN[:7]
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
LIMITS = Kind("v1", "LimitRange", "limitranges")
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
VLLM = {"model": {"uri": "a/b"}, "engine": {"type": "vllm"}}
SOME = {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}


def cache(claim: str) -> dict[str, Any]:
    """A model whose weights are on a claim."""
    volume = {"type": "pvc", "claimName": claim}
    return {**VLLM, "model": {"uri": "a/b", "cache": volume}, "resources": SOME}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is there before, a spec that does not run there, and words of the remedy."""

    name: str
    spec: dict[str, Any]
    remedy: str
    before: tuple[Kind, dict[str, Any]] | None = None
    not_said: tuple[str, ...] = field(default=("raise the quota", "add nodes"))


REFUSALS = (
    Refusal(
        "no-priority-class",
        {"template": {"spec": {"priorityClassName": "absent"}}},
        "create the PriorityClass, or name another one in spec.template.spec.priorityClassName",
    ),
    Refusal(
        "limit-range",
        {"resources": SOME},
        "set spec.resources to what the namespace's LimitRange allows",
        (LIMITS, {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]}),
    ),
    Refusal(
        "quota-that-wants-requests",
        {"resources": {"requests": {"cpu": "10m"}}},
        "set the requests and limits that the namespace's quota demands in spec.resources",
        (QUOTA, {"hard": {"limits.memory": "1Gi"}}),
    ),
    Refusal(
        "quota",
        {"resources": SOME},
        "raise the quota, or lower spec.resources or spec.replicas",
        (QUOTA, {"hard": {"pods": "0"}}),
        not_said=("LimitRange", "PriorityClass"),
    ),
    Refusal("no-claim", cache("absent"), "kubectl describe pvc"),
    Refusal(
        "claim-without-volume",
        cache("own"),
        "kubectl describe pvc",
        (CLAIM, {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}),
    ),
    Refusal(
        "no-node",
        {"template": {"spec": {"nodeSelector": {"gpu": "none"}}}},
        "add nodes, free some, or change spec.resources",
        not_said=("kubectl describe pvc", "raise the quota"),
    ),
)


async def condition(cluster: Cluster, name: str, type_: str) -> dict[str, Any]:
    status = (await cluster.resource(name)).get("status") or {}
    return next((c for c in status.get("conditions", ()) if c["type"] == type_), {})


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
async def test_what_keeps_pods_from_running_is_reported_with_what_mends_it(
    cluster: Cluster, refusal: Refusal
) -> None:
    if refusal.before is not None:
        kind, spec = refusal.before
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "own"}}
        await cluster.send("POST", kind.path(cluster.namespace), {**body, "spec": spec})
        if kind is QUOTA:
            await until(lambda: is_counted(cluster), "the quota counted")
    await cluster.start()
    await cluster.create("glm", **refusal.spec)

    async def is_said() -> bool:
        said = (await condition(cluster, "glm", "Ready")).get("message", "")
        return refusal.remedy in said

    await until(is_said, refusal.remedy, 30)
    message = (await condition(cluster, "glm", "Ready"))["message"]
    assert [text for text in refusal.not_said if text in message] == []


async def is_counted(cluster: Cluster) -> bool:
    quota = await cluster.get(QUOTA, "own")
    return bool(quota and quota.get("status", {}).get("hard"))


async def test_an_image_of_ours_that_no_registry_has_is_reported_with_how_to_load_it(
    cluster: Cluster,
) -> None:
    await cluster.start(echo_image="open-autoglm:0.1.0")
    await cluster.create("glm", template={"metadata": {"annotations": {HOLD: "true"}}})

    async def pods() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await cluster.send("GET", POD.path(cluster.namespace)))[
            "items"
        ]
        return [pod for pod in found if "nodeName" in pod["spec"]]

    async def is_placed() -> bool:
        return len(await pods()) == 1

    await until(is_placed, "a pod on a node")
    (pod,) = await pods()
    waiting = {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "open-autoglm:0.1.0"',
    }
    container = {"name": "engine", "image": "open-autoglm:0.1.0", "imageID": "", "ready": False}
    state = [{**container, "restartCount": 0, "state": {"waiting": waiting}}]
    path = POD.path(cluster.namespace, pod["metadata"]["name"], "status")
    body = {"status": {"containerStatuses": state}}
    await cluster.send("PATCH", path, body, content_type=MERGE)

    async def is_said() -> bool:
        ready = await condition(cluster, "glm", "Ready")
        return ready.get("reason") == "ImagePullBackOff"

    await until(is_said, "ImagePullBackOff", 20)
    message = (await condition(cluster, "glm", "Ready"))["message"]
    assert "make images IMAGES=open-autoglm" in message
    assert "make cluster-load IMAGES=open-autoglm" in message


async def test_a_model_that_requests_nothing_is_warned_of_until_it_does(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm", **VLLM)
    await until(lambda: cluster.is_ready("glm"), "ready, for it may fit")
    warning = await condition(cluster, "glm", "ResourcesRequested")
    assert (warning["status"], warning["reason"]) == ("False", "NoResources")
    assert "nvidia.com/gpu in spec.resources.limits" in warning["message"]

    await cluster.change("glm", {"resources": SOME})

    async def is_gone() -> bool:
        return not await condition(cluster, "glm", "ResourcesRequested")

    await until(is_gone, "no warning")


async def test_a_deletion_that_a_finalizer_holds_up_is_reported(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm")
    await until(lambda: cluster.is_ready("glm"), "ready")
    path = RESOURCE.path(cluster.namespace, "glm")
    finalizers = {"metadata": {"finalizers": ["example.com/billing"]}}
    await cluster.send("PATCH", path, finalizers, content_type=MERGE)
    await cluster.send("DELETE", path)

    async def is_reported() -> bool:
        ready = await condition(cluster, "glm", "Ready")
        return (ready["status"], ready["reason"]) == ("False", "Terminating")

    await until(is_reported, "Terminating", 20)
    assert "example.com/billing" in (await condition(cluster, "glm", "Ready"))["message"]
    assert await cluster.phase("glm") == "Terminating"

    await cluster.send("PATCH", path, {"metadata": {"finalizers": None}}, content_type=MERGE)

    async def is_gone() -> bool:
        return await cluster.get(RESOURCE, "glm") is None

    await until(is_gone, "gone", 20)


async def test_kubectl_shows_the_model_also_of_an_engine_without_one(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    await cluster.start()
    await cluster.create("words")
    await cluster.create("glm", **VLLM, resources=SOME)
    for name in ("words", "glm"):
        await until(lambda name=name: cluster.is_ready(name), f"{name} ready")
    header, *rows = control_plane.kubectl("get", "agd", "-n", cluster.namespace).splitlines()
    at = header.index("MODEL")
    shown = {row.split()[0]: row[at:].split()[0] for row in rows}
    assert shown == {"words": "echo", "glm": "a/b"}


async def test_weights_on_the_nodes_disk_are_bounded(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm", **VLLM, resources=SOME)
    own = {"uri": "a/b", "cache": {"sizeLimit": "20Gi"}}
    await cluster.create("small", **{**VLLM, "model": own}, resources=SOME)
    for name in ("glm", "small"):
        await until(lambda name=name: cluster.is_ready(name), f"{name} ready")
    pods = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
    limits = {
        pod["metadata"]["labels"]["autoglm.io/deployment"]: volume["emptyDir"]["sizeLimit"]
        for pod in pods
        for volume in pod["spec"]["volumes"]
        if volume["name"] == "cache"
    }
    assert limits == {"glm": "320Gi", "small": "20Gi"}


async def test_weights_may_come_from_an_image_where_the_restricted_standard_is_enforced(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    enforced = "pod-security.kubernetes.io/enforce=restricted"
    control_plane.kubectl("label", "namespace", cluster.namespace, enforced)
    volume = {"name": "weights", "image": {"reference": "registry.example.com/glm:1"}}
    mount = {"name": "engine", "volumeMounts": [{"name": "weights", "mountPath": "/weights"}]}
    template = {"spec": {"volumes": [volume], "containers": [mount]}}
    await cluster.start()
    await cluster.create("glm", template=template)
    await until(lambda: cluster.is_ready("glm"), "ready")
    (pod,) = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
    (kept,) = [v for v in pod["spec"]["volumes"] if v["name"] == "weights"]
    assert kept["image"]["reference"] == "registry.example.com/glm:1"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_a_proxy_of_the_engine_is_let_through_by_the_policy(
    cluster: Cluster, variable: str
) -> None:
    await cluster.start()
    proxy = {"name": variable, "value": "http://proxy.example.com:3128"}
    engine = {"type": "vllm", "env": [proxy]}
    await cluster.create("glm", model={"uri": "a/b"}, engine=engine, resources=SOME)
    await until(lambda: cluster.is_ready("glm"), "ready")
    policy = await cluster.get(POLICY, "glm")
    assert policy is not None
    ports = {
        port["port"]
        for rule in policy["spec"]["egress"]
        if "to" not in rule
        for port in rule["ports"]
    }
    assert {443, 3128} <= ports
