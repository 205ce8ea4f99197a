"""A real API server: children appear, are repaired, stay as they are, and go."""

import asyncio

import pytest

from autoglm.operator.kinds import CHILDREN, RESOURCE, Kind
from autoglm.testing.controlplane import ControlPlane
from autoglm.testing.operating import Cluster, until

DEPLOYMENT, SERVICE, ACCOUNT, CONFIG, _, BUDGET, POLICY = CHILDREN
EXPECTED = [
    "ConfigMap/glm",
    "NetworkPolicy/glm",
    "PodDisruptionBudget/glm",
    "Service/glm",
    "Service/glm-pods",
    "ServiceAccount/glm",
]


async def test_children_appear_and_pods_become_ready(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm", replicas=2)
    children = await cluster.settled("glm")
    (deployment,) = [name for name in children if name.startswith("Deployment/glm-")]
    assert sorted(children) == sorted([deployment, *EXPECTED])
    assert children[deployment]["spec"]["replicas"] == 2


async def test_at_rest_nothing_is_written_also_by_an_operator_that_starts_anew(
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


@pytest.mark.parametrize("kind", [SERVICE, ACCOUNT, CONFIG, BUDGET, POLICY], ids=lambda k: k.kind)
async def test_a_deleted_child_is_made_again(cluster: Cluster, kind: Kind) -> None:
    await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")
    before = await cluster.get(kind, "glm")
    assert before is not None
    await cluster.send("DELETE", kind.path(cluster.namespace, "glm"))

    async def is_back() -> bool:
        now = await cluster.get(kind, "glm")
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    assert await until(is_back, "made again", 20) < 5


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
    await asyncio.to_thread(kubectl, "patch", "service", "glm", "-p", patch, *at)

    async def is_repaired() -> bool:
        deployment, service = await cluster.get(DEPLOYMENT, name), await cluster.get(SERVICE, "glm")
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


async def test_deleting_the_resource_removes_everything(cluster: Cluster) -> None:
    running = await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")
    writes = len(running.writes)
    await cluster.send("DELETE", RESOURCE.path(cluster.namespace, "glm"))

    async def is_gone() -> bool:
        return not await cluster.children("glm") and await cluster.get(RESOURCE, "glm") is None

    await until(is_gone, "everything gone", 60)
    await asyncio.sleep(1)
    assert running.writes[writes:] == []


async def test_the_end_of_the_operator_changes_nothing(cluster: Cluster) -> None:
    running = await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")
    versions = await cluster.versions("glm")
    await running.stop()
    await asyncio.sleep(2)
    assert await cluster.versions("glm") == versions


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
        return len(owners) == 7 and all([o["uid"] for o in refs] == [uid] for refs in owners)

    await until(owns_all, "children of the namesake", 40)
    await cluster.settled("glm")
