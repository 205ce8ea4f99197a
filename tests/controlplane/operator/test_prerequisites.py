"""A real API server: no pod starts without what it depends on, and none as another's account."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import CHILDREN, POD, Kind
from autoglm.kube.transport import MERGE

DEPLOYMENT, SERVICE, ACCOUNT, CONFIG, _, _, POLICY = CHILDREN[:7]
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
# By kind: the name of the child that pods depend on.
NEEDED = {SERVICE: "glm-pods", ACCOUNT: "glm-inference", CONFIG: "glm", POLICY: "glm"}
TOKEN = {"serviceAccountToken": {"path": "token"}}


async def quota(cluster: Cluster, **hard: str) -> None:
    """Enforced from when its controller has counted."""
    path = QUOTA.path(cluster.namespace)
    body = {"apiVersion": "v1", "kind": QUOTA.kind, "metadata": {"name": "q"}}
    await cluster.send("POST", path, body | {"spec": {"hard": hard}})

    async def is_counted() -> bool:
        found = await cluster.get(QUOTA, "q")
        return bool(found and found.get("status", {}).get("hard") == hard)

    await until(is_counted, "quota counted")


async def pods(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
    return found


async def condition(cluster: Cluster, type_: str) -> dict[str, Any]:
    status = (await cluster.resource("glm")).get("status") or {}
    return next((c for c in status.get("conditions", ()) if c["type"] == type_), {})


async def reason_is(cluster: Cluster, reason: str) -> None:
    async def is_reported() -> bool:
        return (await condition(cluster, "Ready")).get("reason") == reason

    await until(is_reported, reason, 30)


async def test_a_resource_named_after_an_account_runs_no_pod_as_that_account(
    cluster: Cluster,
) -> None:
    await cluster.send("POST", ACCOUNT.path(cluster.namespace), {"metadata": {"name": "glm"}})
    await cluster.start()
    await cluster.create("glm")
    await cluster.settled("glm")

    accounts = {pod["spec"]["serviceAccountName"] for pod in await pods(cluster)}
    assert accounts == {"glm-inference"}


async def test_no_pod_starts_while_its_account_is_anothers(cluster: Cluster) -> None:
    account = {"metadata": {"name": "glm-inference"}}
    await cluster.send("POST", ACCOUNT.path(cluster.namespace), account)
    await cluster.start()
    await cluster.create("glm")
    await reason_is(cluster, "Rejected")

    assert "ServiceAccount glm-inference" in (await condition(cluster, "Ready"))["message"]
    assert await pods(cluster) == []
    assert [n for n in await cluster.children("glm") if n.startswith("Deployment/")] == []

    await cluster.send("DELETE", ACCOUNT.path(cluster.namespace, "glm-inference"))
    await until(lambda: cluster.is_ready("glm"), "ready without further action", 60)


async def test_an_account_of_an_older_version_is_deleted_once_nothing_uses_it(
    cluster: Cluster,
) -> None:
    """It had the resource's own name."""
    await cluster.start()
    await cluster.create("glm")
    children = await cluster.settled("glm")
    now = children["ServiceAccount/glm-inference"]["metadata"]
    old = {key: now[key] for key in ("labels", "ownerReferences")} | {"name": "glm"}
    await cluster.send("POST", ACCOUNT.path(cluster.namespace), {"metadata": old})

    async def is_gone() -> bool:
        return await cluster.get(ACCOUNT, "glm") is None

    await until(is_gone, "the account deleted", 20)
    assert await cluster.get(ACCOUNT, "glm-inference") is not None


async def test_a_template_that_mounts_a_token_of_the_api_is_invalid(cluster: Cluster) -> None:
    await cluster.start()
    volume = {"name": "token", "projected": {"sources": [TOKEN]}}
    await cluster.create("glm", template={"spec": {"volumes": [volume]}})
    await reason_is(cluster, "InvalidSpec")

    message = (await condition(cluster, "Ready"))["message"]
    assert (
        "spec.template.spec.volumes[name=token].projected.sources[0].serviceAccountToken" in message
    )
    assert await cluster.children("glm") == {}


@pytest.mark.parametrize(
    "kind", [k for k in NEEDED if k is not ACCOUNT], ids=lambda kind: kind.kind
)
async def test_pods_wait_for_what_a_quota_refuses_and_start_when_it_is_lifted(
    cluster: Cluster, kind: Kind
) -> None:
    group = f".{kind.group}" if kind.group else ""
    await quota(cluster, **{f"count/{kind.plural}{group}": "1" if kind is CONFIG else "0"})
    await cluster.start()
    await cluster.create("glm", replicas=2)
    await reason_is(cluster, "Rejected")

    assert await pods(cluster) == []
    conditions = {t: await condition(cluster, t) for t in ("Available", "Progressing", "Degraded")}
    assert {t: c["status"] for t, c in conditions.items()} == {
        "Available": "False",
        "Progressing": "False",
        "Degraded": "True",
    }
    assert "exceeded quota" in conditions["Progressing"]["message"]
    assert "raise the quota" in conditions["Progressing"]["message"]

    await cluster.send("DELETE", QUOTA.path(cluster.namespace, "q"))
    await until(lambda: cluster.is_ready("glm"), "ready without further action", 60)
    assert await cluster.get(kind, NEEDED[kind]) is not None


async def test_running_pods_stay_and_none_is_added_while_their_policy_is_refused(
    cluster: Cluster,
) -> None:
    await cluster.start()
    await cluster.create("glm", replicas=1)
    await cluster.settled("glm")
    await quota(cluster, **{"count/networkpolicies.networking.k8s.io": "0"})
    before = {pod["metadata"]["name"] for pod in await pods(cluster)}
    await cluster.send("DELETE", POLICY.path(cluster.namespace, "glm"))
    await reason_is(cluster, "Rejected")
    await cluster.change("glm", {"replicas": 3})

    async def is_considered() -> bool:
        resource = await cluster.resource("glm")
        seen = resource["status"]["observedGeneration"]
        return bool(seen == resource["metadata"]["generation"])

    await until(is_considered, "the change considered", 30)
    assert {pod["metadata"]["name"] for pod in await pods(cluster)} == before
    available = await condition(cluster, "Available")
    assert (available["status"], available["reason"]) == ("True", "Serving")

    hard = {"spec": {"hard": {"count/networkpolicies.networking.k8s.io": "1"}}}
    await cluster.send("PATCH", QUOTA.path(cluster.namespace, "q"), hard, content_type=MERGE)

    async def is_grown() -> bool:
        return len(await pods(cluster)) == 3

    await until(is_grown, "three pods without further action", 60)
    assert await cluster.get(POLICY, "glm") is not None
