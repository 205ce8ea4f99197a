"""A real API server: one model name in two namespaces, and names that a namespace may not claim."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.support.kube.controlplane import ControlPlane
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import EVENT, RESOURCE

RULES = '[{"names": ["gpt-*"], "namespaces": ["platform"]}]'


@pytest.fixture
async def other(cluster: Cluster, control_plane: ControlPlane) -> AsyncIterator[Cluster]:
    """Another namespace of the same cluster."""
    name = f"{cluster.namespace}-other"
    control_plane.kubectl("create", "namespace", name)
    yield replace(cluster, namespace=name, _operators=[])
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


async def conditions_of(cluster: Cluster, *types: str) -> dict[str, str]:
    status = (await cluster.resource("glm")).get("status") or {}
    found = {c["type"]: f"{c['status']} {c['reason']}" for c in status.get("conditions", ())}
    return {type_: found.get(type_, "") for type_ in types}


async def reports(cluster: Cluster, **wanted: str) -> None:
    async def is_reported() -> bool:
        return await conditions_of(cluster, *wanted) == wanted

    await until(is_reported, f"{wanted} in {cluster.namespace}", 60)


async def events(cluster: Cluster) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await cluster.send("GET", EVENT.path(cluster.namespace)))[
        "items"
    ]
    uid = (await cluster.resource("glm"))["metadata"]["uid"]
    return [e for e in listed if e["regarding"].get("uid") == uid]


async def test_the_younger_of_two_resources_with_one_name_is_not_ready_until_the_older_goes(
    cluster: Cluster, other: Cluster
) -> None:
    await cluster.start(namespace=(cluster.namespace, other.namespace))
    await cluster.create("glm", model={"servedName": "gpt-4o"})
    older = (await cluster.resource("glm"))["metadata"]["creationTimestamp"]
    await reports(cluster, Ready="True Ready")

    async def is_another_second() -> bool:
        """The namespace decides at equal age, and creation has a resolution of a second."""
        if await other.get(RESOURCE, "glm"):
            await other.send("DELETE", RESOURCE.path(other.namespace, "glm"))
        made = await other.create("glm", model={"aliases": ["gpt-4o"]})
        return bool(made["metadata"]["creationTimestamp"] > older)

    await until(is_another_second, "a younger resource", 10)
    await reports(
        other, Ready="False NameTaken", Routable="False NameTaken", Available="True Serving"
    )
    conditions = (await other.resource("glm"))["status"]["conditions"]
    (message,) = (c["message"] for c in conditions if c["type"] == "Ready")
    assert f"'gpt-4o' by {cluster.namespace}/glm" in message

    async def is_announced() -> bool:
        """Events are written after the status."""
        taken = [e["type"] for e in await events(other) if e["reason"] == "NameTaken"]
        assert len(taken) < 2
        return taken == ["Warning"]

    await until(is_announced, "one event", 30)
    assert "NameTaken" not in {e["reason"] for e in await events(cluster)}
    await reports(cluster, Ready="True Ready")

    await cluster.send("DELETE", RESOURCE.path(cluster.namespace, "glm"))
    await reports(other, Ready="True Ready")


async def test_a_name_that_a_namespace_may_not_claim_is_rejected_and_blocks_no_other(
    cluster: Cluster, other: Cluster
) -> None:
    rules = RULES.replace("platform", other.namespace)
    await cluster.start(namespace=(cluster.namespace, other.namespace), model_name_rules=rules)
    await cluster.create("glm", model={"aliases": ["gpt-4o"]})
    await reports(cluster, Ready="False NameNotAllowed", Routable="False NameNotAllowed")
    await other.create("glm", model={"servedName": "gpt-4o"})
    await reports(other, Ready="True Ready")

    await cluster.change("glm", {"model": {"aliases": None}})
    # It is the older of the two, so the name `glm` is its own.
    await reports(cluster, Ready="True Ready")
