"""A real API server: the last valid spec stays reconciled while the current one is invalid."""

from __future__ import annotations

from typing import Any

from tests.support.operating import Cluster, until

from autoglm.kube.kinds import CHILDREN, POD

DEPLOYMENT, SERVICE, _, _, _, _, POLICY = CHILDREN[:7]
INVALID = {"template": {"spec": {"hostNetwork": True}}}


async def status(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = (await cluster.resource("glm")).get("status") or {}
    return found


async def condition(cluster: Cluster, type_: str) -> tuple[str, str]:
    conditions = (await status(cluster)).get("conditions", ())
    found: dict[str, str] = next((c for c in conditions if c["type"] == type_), {})
    return found.get("status", ""), found.get("reason", "")


async def invalidated(cluster: Cluster) -> dict[str, Any]:
    """The children of a resource that was valid until now, all of whose replicas are ready."""
    await cluster.create("glm", replicas=2)

    async def are_ready() -> bool:
        return await condition(cluster, "Ready") == ("True", "Ready")

    await until(are_ready, "both replicas ready")
    children = await cluster.settled("glm")
    await cluster.change("glm", INVALID)

    async def is_invalid() -> bool:
        return await condition(cluster, "Ready") == ("False", "InvalidSpec")

    await until(is_invalid, "InvalidSpec")
    return children


async def test_children_deleted_while_the_spec_is_invalid_come_back_also_after_a_restart(
    cluster: Cluster,
) -> None:
    first = await cluster.start()
    before = await invalidated(cluster)
    await first.stop()
    (deployment,) = (n.partition("/")[2] for n in before if n.startswith("Deployment/"))
    for kind, name in ((DEPLOYMENT, deployment), (SERVICE, "glm-pods"), (POLICY, "glm")):
        await cluster.send("DELETE", kind.path(cluster.namespace, name))

    async def pods_are_gone() -> bool:
        return not (await cluster.send("GET", POD.path(cluster.namespace)))["items"]

    await until(pods_are_gone, "pods gone")
    await cluster.start()

    async def is_whole() -> bool:
        now = await cluster.children("glm")
        return now.keys() == before.keys() and (await status(cluster)).get("readyReplicas") == 2

    await until(is_whole, "repaired", 30)
    after = await cluster.children("glm")
    for name, child in before.items():
        assert after[name].get("spec", {}).get("template") == child.get("spec", {}).get("template")
    assert await condition(cluster, "Ready") == ("False", "InvalidSpec")
    assert await condition(cluster, "Available") == ("True", "Serving")


async def test_the_status_is_true_while_the_spec_is_invalid(cluster: Cluster) -> None:
    running = await cluster.start()
    await invalidated(cluster)
    assert (await status(cluster))["readyReplicas"] == 2
    writes = len(running.writes)
    await cluster.settled("glm")
    assert running.writes[writes:] == []

    await cluster.change("glm", {"replicas": 0})

    async def is_idle() -> bool:
        counted = not (await status(cluster)).get("readyReplicas")
        return counted and await condition(cluster, "Available") == ("False", "Idle")

    await until(is_idle, "no replica counted", 30)
    await cluster.change("glm", {"replicas": 1, "template": None})

    async def is_ready() -> bool:
        return await condition(cluster, "Ready") == ("True", "Ready")

    await until(is_ready, "ready with the corrected spec", 30)
