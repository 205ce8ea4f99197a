"""A real API server: a changed profile rolls out to one model after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import PROFILE
from autoglm.kube.transport import MERGE, Refused

NAMES = ("a", "b", "c")


def spec_of(cpu: str) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}}, "nodeSelector": {"type": "fake"}}


@pytest.fixture
async def profile(cluster: Cluster) -> AsyncIterator[str]:
    """A profile of this test's own, since profiles are of the whole cluster."""
    name = f"{cluster.namespace}-small"
    await put(cluster, name, "1m")
    yield name
    with_it = PROFILE.path("", name)
    try:
        await cluster.send("DELETE", with_it)
    except Refused as error:
        assert error.is_not_found


async def put(cluster: Cluster, name: str, cpu: str) -> None:
    head = {"apiVersion": PROFILE.api_version, "kind": PROFILE.kind, "metadata": {"name": name}}
    await cluster.send("POST", PROFILE.path(), {**head, "spec": spec_of(cpu)})


async def change(cluster: Cluster, name: str, spec: dict[str, Any]) -> None:
    await cluster.send("PATCH", PROFILE.path("", name), {"spec": spec}, content_type=MERGE)


async def cpus(cluster: Cluster, name: str) -> dict[str, int]:
    """Replicas of the resource's Deployments, by the CPU request of their pods."""
    found: dict[str, int] = {}
    for kind, child in (await cluster.children(name)).items():
        if kind.startswith("Deployment/"):
            template = child["spec"]["template"]["spec"]
            request = template["containers"][0]["resources"]["requests"]["cpu"]
            found[request] = child["spec"]["replicas"]
    return found


async def reason(cluster: Cluster, name: str, type_: str) -> str:
    status = (await cluster.resource(name)).get("status") or {}
    found = (c["reason"] for c in status.get("conditions", ()) if c["type"] == type_)
    return next(found, "")


async def is_ready(cluster: Cluster, name: str, cpu: str) -> bool:
    has_replaced = await cpus(cluster, name) == {cpu: 1}
    return has_replaced and await reason(cluster, name, "Ready") == "Ready"


async def begun(cluster: Cluster, profile: str) -> None:
    await cluster.start()
    for name in NAMES:
        await cluster.create(name, profile={"name": profile})
    for name in NAMES:
        await until(lambda name=name: is_ready(cluster, name, "1m"), f"{name} is ready")


async def test_a_changed_profile_rolls_models_one_at_a_time(cluster: Cluster, profile: str) -> None:
    await begun(cluster, profile)
    await change(cluster, profile, spec_of("2m"))
    most = 0

    async def have_all_replaced() -> bool:
        nonlocal most
        found = [await cpus(cluster, name) for name in NAMES]
        most = max(most, sum(len(each) > 1 for each in found))
        return found == [{"2m": 1}] * len(NAMES)

    await until(have_all_replaced, "all models have the changed profile")
    assert most == 1
    assert await reason(cluster, "c", "ProfileApplied") == "Applied"


async def test_one_that_cannot_start_with_it_holds_up_the_others_which_serve(
    cluster: Cluster, profile: str
) -> None:
    await begun(cluster, profile)
    await change(cluster, profile, spec_of("2m") | {"nodeSelector": {"type": "none"}})

    async def do_others_wait() -> bool:
        reasons = [await reason(cluster, name, "ProfileApplied") for name in NAMES]
        return reasons == ["Applied", "WaitingForTurn", "WaitingForTurn"]

    await until(do_others_wait, "the others wait")
    assert await reason(cluster, "a", "Available") == "Serving"

    async def has_one_more() -> bool:
        return [len(await cpus(cluster, name)) for name in NAMES] == [2, 1, 1]

    await until(has_one_more, "the first has a Pod of the new profile, which cannot start")

    await change(cluster, profile, spec_of("3m"))
    for name in NAMES:
        await until(lambda name=name: is_ready(cluster, name, "3m"), f"{name} is corrected")


async def test_an_operator_that_starts_meanwhile_continues_where_the_other_ended(
    cluster: Cluster, profile: str
) -> None:
    await begun(cluster, profile)
    await cluster.stop_all()
    await change(cluster, profile, spec_of("2m"))
    await cluster.start()
    for name in NAMES:
        await until(lambda name=name: is_ready(cluster, name, "2m"), f"{name} follows")


async def test_a_missing_profile_is_reported_and_taken_once_it_is_there(cluster: Cluster) -> None:
    name = f"{cluster.namespace}-late"
    await cluster.start()
    await cluster.create("glm", profile={"name": name})

    async def is_reported() -> bool:
        return await reason(cluster, "glm", "Ready") == "ProfileNotFound"

    await until(is_reported, "the profile is missing")
    await put(cluster, name, "1m")
    await until(lambda: is_ready(cluster, "glm", "1m"), "it is taken")

    await cluster.send("DELETE", PROFILE.path("", name))
    await until(is_reported, "the profile is missing again")
    assert await cpus(cluster, "glm") == {"1m": 1}


async def test_at_rest_a_model_with_a_profile_causes_no_request(
    cluster: Cluster, profile: str
) -> None:
    running = await cluster.start()
    await cluster.create("glm", profile={"name": profile})
    await cluster.settled("glm")
    before = len(running.faults.seen)
    running.operator._enqueue(None)
    await asyncio.sleep(1)
    assert running.faults.seen[before:] == []
