"""A real API server: operators of one installation or of two never work against each other."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.operating import Cluster, Running, until

from autoglm.kube.kinds import EVENT, child_kind
from autoglm.kube.transport import MERGE

CONFIG, SERVICE = child_kind("v1", "ConfigMap"), child_kind("v1", "Service")


async def test_of_two_operators_with_one_identity_one_leads(cluster: Cluster) -> None:
    first = await cluster.start(leader_election=True, identity="same")
    second = await cluster.start(leader_election=True, identity="same")
    pair = (first, second)
    await until(lambda: any(o.operator.is_leading for o in pair), "a leader")
    led = []
    for _ in range(80):
        await asyncio.sleep(0.1)
        led.append(sum(o.operator.is_leading for o in pair))

    assert set(led) == {1}


async def installation(cluster: Cluster, name: str, **settings: Any) -> Running:
    """An operator that leads by a Lease of its own, and wants another image than others."""
    own = {"leader_election": True, "lease_name": name, "echo_image": f"image-of-{name}"}
    running = await cluster.start(**(own | {"claim_timeout_seconds": 5} | settings))
    await until(lambda: running.operator.is_leading, f"{name} leads")
    return running


def children(running: Running) -> list[str]:
    return [r.path for r in running.writes if "/events" not in r.path]


async def test_two_installations_do_not_fight_and_the_second_says_why(cluster: Cluster) -> None:
    first = await installation(cluster, "first")
    second = await installation(cluster, "second")
    names = [f"glm-{number}" for number in range(5)]
    for name in names:
        await cluster.create(name)
    for name in names:
        await until(lambda name=name: cluster.is_ready(name), f"{name} ready", 40)
    await asyncio.sleep(2)
    before = len(first.writes) + len(second.writes)
    await asyncio.sleep(10)

    assert len(first.writes) + len(second.writes) - before <= 2
    events = (await cluster.send("GET", EVENT.path(cluster.namespace)))["items"]
    reported = {e["regarding"]["name"] for e in events if e["reason"] == "ClaimedByAnother"}
    assert reported == set(names)
    claims = {await claim(cluster, name) for name in names}
    assert claims <= {f"{cluster.namespace}/{lease}" for lease in ("first", "second")}


async def claim(cluster: Cluster, name: str) -> str:
    found = await cluster.get(CONFIG, name)
    assert found is not None
    return str(found["metadata"]["annotations"]["autoglm.io/operator"])


async def test_a_dead_installation_is_succeeded_and_not_fought_when_it_returns(
    cluster: Cluster,
) -> None:
    first = await installation(cluster, "first")
    await cluster.create("glm")
    await until(lambda: cluster.is_ready("glm"), "ready")
    second = await installation(cluster, "second")
    await asyncio.sleep(7)
    assert children(second) == []
    await first.stop()

    async def is_taken_over() -> bool:
        return await claim(cluster, "glm") == f"{cluster.namespace}/second"

    await until(is_taken_over, "the second runs it", 30)
    await cluster.settled("glm")
    again = await installation(cluster, "first")
    await asyncio.sleep(5)
    assert children(again) == []


async def test_each_class_runs_its_own_and_a_change_of_class_hands_over(cluster: Cluster) -> None:
    plain = await installation(cluster, "plain")
    other = await installation(cluster, "other", operator_class="x")
    await cluster.create("of-x", operatorClass="x")
    await cluster.create("of-none")
    for name in ("of-x", "of-none"):
        await until(lambda name=name: cluster.is_ready(name), f"{name} ready")
    assert not any("/of-x" in path for path in children(plain))
    assert not any("/of-none" in path for path in children(other))

    await cluster.change("of-none", {"operatorClass": "x"})

    async def is_handed_over() -> bool:
        return await claim(cluster, "of-none") == f"{cluster.namespace}/other"

    await until(is_handed_over, "handed over", 10)


async def test_a_controller_that_changes_a_field_back_is_named_and_written_seldom(
    cluster: Cluster,
) -> None:
    running = await installation(cluster, "only")
    await cluster.create("glm")
    await cluster.settled("glm")
    path = SERVICE.path(cluster.namespace, "glm-pods")

    async def overwrite() -> None:
        while True:
            await cluster.send(
                *("PATCH", path, {"spec": {"selector": {"autoglm.io/deployment": "other"}}}),
                content_type=MERGE,
                query=(("fieldManager", "rival"),),
            )
            await asyncio.sleep(0.2)

    task = asyncio.create_task(overwrite())

    async def is_reported() -> bool:
        conditions = (await cluster.resource("glm"))["status"]["conditions"]
        (degraded,) = (c for c in conditions if c["type"] == "Degraded")
        return degraded["reason"] == "Conflict" and "rival keeps reverting" in degraded["message"]

    await until(is_reported, "the rival in the status", 20)
    before = len([r for r in running.writes if r.path == path])
    await asyncio.sleep(15)
    assert len([r for r in running.writes if r.path == path]) - before <= 4
    task.cancel()
