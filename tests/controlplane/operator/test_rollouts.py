"""A real API server: one revision replaces another, or doesn't, and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.support.kube.controlplane import HOLD
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import CHILDREN, POD

DEPLOYMENT = CHILDREN[0]
DESIRED = 3
HELD = {"metadata": {"annotations": {HOLD: "true"}}}


async def pods(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
    return found


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


async def replicas(cluster: Cluster) -> dict[str, int]:
    """Return the replicas of each Deployment of a revision."""
    found = await cluster.children("glm")
    names = (name for name in found if name.startswith("Deployment/"))
    return {name: found[name]["spec"]["replicas"] for name in names}


class Watcher:
    """Counts pods all the time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.most = 0
        self.fewest_ready = DESIRED
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            seen = await pods(self._cluster)
            self.most = max(self.most, len(seen))
            self.fewest_ready = min(self.fewest_ready, sum(map(is_ready, seen)))
            await asyncio.sleep(0.05)

    async def end(self) -> tuple[int, int]:
        self._task.cancel()
        await asyncio.wait((self._task,))
        return self.most, self.fewest_ready


async def begun(cluster: Cluster) -> str:
    """The resource runs; the name of its Deployment."""
    await cluster.start()
    await cluster.create("glm", replicas=DESIRED)
    await until(lambda: is_phase(cluster, "Ready"), "all replicas ready")
    (name,) = await replicas(cluster)
    return name


async def is_phase(cluster: Cluster, phase: str) -> bool:
    return await cluster.phase("glm") == phase


async def test_one_revision_replaces_another_without_a_gap(cluster: Cluster) -> None:
    old = await begun(cluster)
    watcher = Watcher(cluster)
    await cluster.change("glm", {"model": {"maxModelLen": 100}})

    async def is_replaced() -> bool:
        now = await replicas(cluster)
        return old not in now and list(now.values()) == [DESIRED]

    await until(is_replaced, "the new revision alone")

    assert await watcher.end() == (DESIRED + 1, DESIRED)
    await until(lambda: is_phase(cluster, "Ready"), "ready again")


async def test_a_revision_that_never_starts_leaves_the_old_one_and_is_taken_back(
    cluster: Cluster,
) -> None:
    old = await begun(cluster)
    watcher = Watcher(cluster)
    await cluster.change("glm", {"model": {"maxModelLen": 100}, "template": HELD})
    await until(lambda: is_phase(cluster, "Updating"), "a new revision")
    await until(lambda: surged(cluster), "its first pod")
    assert sorted((await replicas(cluster)).values()) == [1, DESIRED]

    await cluster.change("glm", {"model": {"maxModelLen": None}, "template": None})

    async def is_back() -> bool:
        return await replicas(cluster) == {old: DESIRED}

    await until(is_back, "the old revision alone")
    assert await watcher.end() == (DESIRED + 1, DESIRED)


async def surged(cluster: Cluster) -> bool:
    return len(await pods(cluster)) == DESIRED + 1
