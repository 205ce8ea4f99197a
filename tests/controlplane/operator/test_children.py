"""A real API server: children appear, are repaired, stay as they are, and go."""

import asyncio
from typing import Any

import pytest
from tests.support.kube.controlplane import ControlPlane
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import CHILDREN, ENDPOINT_SLICE, POD, RESOURCE, Kind
from autoglm.kube.transport import MERGE

DEPLOYMENT, SERVICE, ACCOUNT, CONFIG, HPA, BUDGET, POLICY = CHILDREN[:7]
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
SCALING = {"maxReplicas": 3}
EVERY_NAMESPACES = {"ServiceAccount/default", "ConfigMap/kube-root-ca.crt"}
OTHER_NAMES = {ACCOUNT: "glm-inference", SERVICE: "glm-pods"}
EXPECTED = [
    "ConfigMap/glm",
    "NetworkPolicy/glm",
    "PodDisruptionBudget/glm",
    "Service/glm-pods",
    "ServiceAccount/glm-inference",
]


async def test_children_appear_and_pods_become_ready(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm", replicas=2)
    children = await cluster.settled("glm")
    (deployment,) = [name for name in children if name.startswith("Deployment/glm-")]
    assert sorted(children) == sorted([deployment, *EXPECTED])
    assert children[deployment]["spec"]["replicas"] == 2


async def test_at_rest_nothing_is_written_also_by_a_new_operator(
    cluster: Cluster,
) -> None:
    first = await cluster.start(resync_seconds=1)
    await cluster.create("glm")
    await cluster.settled("glm")
    versions, writes = await cluster.versions("glm"), len(first.writes)
    await asyncio.sleep(3)
    assert first.writes[writes:] == []
    await first.stop()
    second = await cluster.start(resync_seconds=1)
    await until(lambda: second.operator.is_leading, "second operator")
    await asyncio.sleep(3)
    assert (second.writes, await cluster.versions("glm")) == ([], versions)


async def test_nothing_but_the_status_is_written_to_the_resource(cluster: Cluster) -> None:
    await cluster.start()
    created = await cluster.create("glm")
    await cluster.settled("glm")
    metadata = (await cluster.resource("glm"))["metadata"]
    assert "annotations" not in metadata and "finalizers" not in metadata
    assert metadata["generation"] == created["metadata"]["generation"]
    managers = {(m["manager"], m.get("subresource")) for m in metadata["managedFields"]}
    assert ("autoglm-operator", "status") in managers
    assert ("autoglm-operator", None) not in managers


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, "glm") for kind in (CONFIG, HPA, BUDGET, POLICY)),
        (SERVICE, "glm-pods"),
        (ACCOUNT, "glm-inference"),
        (DEPLOYMENT, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
async def test_a_deleted_child_is_made_again(cluster: Cluster, kind: Kind, name: str) -> None:
    await cluster.start()
    await cluster.create("glm", scaling=SCALING)
    await until(lambda: cluster.is_ready("glm"), "ready")
    name = name or await deployment_of(cluster)
    before = await cluster.get(kind, name)
    assert before is not None
    await cluster.send("DELETE", kind.path(cluster.namespace, name))

    async def is_back() -> bool:
        now = await cluster.get(kind, name)
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    assert await until(is_back, "made again", 20) < 5


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        (DEPLOYMENT, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 99}}}}),
        (SERVICE, {"spec": {"selector": {"app.kubernetes.io/component": "other"}}}),
        (ACCOUNT, {"automountServiceAccountToken": True}),
        (CONFIG, {"data": {"AUTOGLM_LOG_FORMAT": "text"}}),
        (HPA, {"spec": {"maxReplicas": 99}}),
        (BUDGET, {"spec": {"maxUnavailable": 3}}),
        (POLICY, {"spec": {"ingress": [{}]}}),
    ],
    ids=lambda value: value.kind if isinstance(value, Kind) else "",
)
async def test_a_child_edited_by_hand_becomes_what_it_was(
    cluster: Cluster, kind: Kind, edit: dict[str, Any]
) -> None:
    await cluster.start()
    await cluster.create("glm", scaling=SCALING)
    await until(lambda: cluster.is_ready("glm"), "ready")
    name = await deployment_of(cluster) if kind is DEPLOYMENT else OTHER_NAMES.get(kind, "glm")
    before = content(await cluster.get(kind, name))
    path, by_hand = kind.path(cluster.namespace, name), (("fieldManager", "kubectl-edit"),)
    edited = await cluster.send("PATCH", path, edit, content_type=MERGE, query=by_hand)
    assert content(edited) != before

    async def is_repaired() -> bool:
        return content(await cluster.get(kind, name)) == before

    assert await until(is_repaired, "as it was", 20) < 5


async def deployment_of(cluster: Cluster) -> str:
    (name,) = [n for n in await cluster.children("glm") if n.startswith("Deployment/")]
    return name.partition("/")[2]


def content(child: dict[str, Any] | None) -> dict[str, Any]:
    """Without what others write."""
    assert child is not None
    return {key: value for key, value in child.items() if key not in ("metadata", "status")}


async def test_an_edit_by_hand_is_taken_back_and_foreign_fields_stay(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    await cluster.start()
    await cluster.create("glm", replicas=2)
    children = await cluster.settled("glm")
    name = next(n for n in children if n.startswith("Deployment/")).partition("/")[2]
    at = ("-n", cluster.namespace)
    kubectl = control_plane.kubectl
    await asyncio.to_thread(kubectl, "scale", "deployment", name, "--replicas=5", *at)
    await asyncio.to_thread(kubectl, "annotate", "deployment", name, "example.com/note=mine", *at)
    patch = '{"spec":{"ports":[{"name":"http","port":8000,"targetPort":1234}]}}'
    await asyncio.to_thread(kubectl, "patch", "service", "glm-pods", "-p", patch, *at)

    async def is_repaired() -> bool:
        deployment, service = (
            await cluster.get(DEPLOYMENT, name),
            await cluster.get(SERVICE, "glm-pods"),
        )
        assert deployment and service
        ports = {p["name"]: p["targetPort"] for p in service["spec"]["ports"]}
        return (deployment["spec"]["replicas"], ports["http"]) == (2, "http")

    assert await until(is_repaired, "repaired", 20) < 10
    deployment = await cluster.get(DEPLOYMENT, name)
    assert deployment
    assert deployment["metadata"]["annotations"]["example.com/note"] == "mine"


async def test_another_appliers_field_is_reported_and_not_fought_over(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    running = await cluster.start(resync_seconds=2)
    await cluster.create("glm")
    await cluster.settled("glm")
    theirs = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "glm", "namespace": cluster.namespace},
        "spec": {"maxUnavailable": 3},
    }
    text = str(theirs).replace("'", '"')
    arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=argocd", "-f", "-")
    await asyncio.to_thread(control_plane.kubectl, *arguments, text=text)

    async def is_reported() -> bool:
        status = (await cluster.resource("glm"))["status"]
        return any("argocd" in c["message"] for c in status["conditions"])

    await until(is_reported, "conflict in a condition", 30)
    await asyncio.sleep(2)
    writes, versions = len(running.writes), await cluster.versions("glm")
    await asyncio.sleep(5)
    assert running.writes[writes:] == []
    assert await cluster.versions("glm") == versions
    budget = await cluster.get(BUDGET, "glm")
    assert budget and budget["spec"]["maxUnavailable"] == 3
    # Its owner lets go: ours again.
    await asyncio.to_thread(
        control_plane.kubectl,
        *("apply", "--server-side", "--field-manager=argocd", "-f", "-"),
        text=text.replace('"spec": {"maxUnavailable": 3}', '"spec": {}'),
    )

    async def is_ours() -> bool:
        budget = await cluster.get(BUDGET, "glm")
        return bool(budget and budget["spec"].get("maxUnavailable") != 3)

    await until(is_ours, "taken back", 30)


async def everything(cluster: Cluster) -> dict[str, str]:
    """Versions of all objects, by kind and name, but for those that Kubernetes itself makes."""
    found = {}
    for kind in (*CHILDREN, REPLICA_SET, POD, ENDPOINT_SLICE):
        for item in (await cluster.send("GET", kind.path(cluster.namespace)))["items"]:
            metadata = item["metadata"]
            found[f"{kind.kind}/{metadata['name']}"] = metadata["resourceVersion"]
    return {key: found[key] for key in found.keys() - EVERY_NAMESPACES}


async def test_deleting_the_resource_removes_everything(cluster: Cluster) -> None:
    running = await cluster.start()
    await cluster.create("glm", scaling=SCALING, replicas=2)
    await until(lambda: cluster.is_ready("glm"), "ready")
    assert {name.partition("/")[0] for name in await everything(cluster)} == {
        # Claims and Jobs come with a cache: see test_weights.
        kind.kind
        for kind in (*CHILDREN[:7], REPLICA_SET, POD, ENDPOINT_SLICE)
    }
    writes = len(running.writes)
    await cluster.send("DELETE", RESOURCE.path(cluster.namespace, "glm"))

    async def is_gone() -> bool:
        return not await everything(cluster) and await cluster.get(RESOURCE, "glm") is None

    await until(is_gone, "everything gone", 60)
    await asyncio.sleep(1)
    assert running.writes[writes:] == []


async def test_the_end_of_the_operator_changes_nothing(cluster: Cluster) -> None:
    running = await cluster.start()
    await cluster.create("glm", replicas=2)
    await cluster.settled("glm")
    versions = await everything(cluster) | await cluster.versions("glm")
    await running.stop()
    await asyncio.sleep(2)
    assert await everything(cluster) | await cluster.versions("glm") == versions


async def test_without_an_operator_lost_pods_are_replaced_and_serve(cluster: Cluster) -> None:
    running = await cluster.start()
    await cluster.create("glm", replicas=2)
    await cluster.settled("glm")
    before = await serving(cluster)
    await running.stop()
    lost = min(before)
    await cluster.send("DELETE", POD.path(cluster.namespace, lost))

    async def is_replaced() -> bool:
        now = await serving(cluster)
        return len(now) == len(before) == 2 and lost not in now

    await until(is_replaced, "a new pod takes requests", 30)


async def serving(cluster: Cluster) -> set[str]:
    """Pods to which the Service sends requests."""
    query = (("labelSelector", "kubernetes.io/service-name=glm-pods"),)
    slices = (await cluster.send("GET", ENDPOINT_SLICE.path(cluster.namespace), query=query))[
        "items"
    ]
    endpoints = [e for s in slices for e in s.get("endpoints") or ()]
    return {e["targetRef"]["name"] for e in endpoints if e["conditions"]["ready"]}


async def test_a_change_of_the_resource_is_carried_out(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")
    await cluster.change("glm", {"replicas": 3})

    async def has_three() -> bool:
        status = (await cluster.resource("glm"))["status"]
        return bool(status.get("readyReplicas") == 3)

    await until(has_three, "three replicas")


async def test_a_namesake_made_at_once_gets_children_of_its_own(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")
    await cluster.send("DELETE", RESOURCE.path(cluster.namespace, "glm"))
    uid = (await cluster.create("glm"))["metadata"]["uid"]

    async def owns_all() -> bool:
        owners = [
            c["metadata"]["ownerReferences"] for c in (await cluster.children("glm")).values()
        ]
        return len(owners) == len(EXPECTED) + 1 and all(
            [o["uid"] for o in refs] == [uid] for refs in owners
        )

    await until(owns_all, "children of the namesake", 40)
    await cluster.settled("glm")
