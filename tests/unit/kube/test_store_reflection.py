"""Watches: caches follow the server, through expiry and outages, without losing their state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import FakeApiServer, Faults, Object

from autoglm.api.labels import DEPLOYMENT
from autoglm.kube.kinds import POD, Key
from autoglm.kube.store import Cache, Selection, watch
from autoglm.kube.transport import Refused, Request, Unreachable
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.metrics import Metrics

pytestmark = pytest.mark.looptime
GLM = Key("ns", "glm")


def pod(name: str, **more: object) -> Object:
    return {"metadata": {"name": name, "namespace": "ns", "labels": {DEPLOYMENT: "glm"}}} | more


@dataclass
class Rig:
    server: FakeApiServer
    faults: Faults
    cache: Cache
    heard: list[Key]

    def names(self) -> list[str]:
        return [p["metadata"]["name"] for p in self.cache.of(GLM)]


@asynccontextmanager
async def watching(*present: str) -> AsyncIterator[Rig]:
    server = FakeApiServer()
    for name in present:
        server.put(POD.path("ns", name), pod(name))
    faults, cache, heard = Faults(server), Cache(POD), list[Key]()
    metrics = Metrics(CollectorRegistry())
    kube = Kube(faults, metrics, Limits(10, lambda: 0))
    reflector = watch(kube, cache, Selection(), heard.append, metrics, Random(1))
    task = asyncio.create_task(reflector.run())
    await reflector.synced.wait()
    yield Rig(server, faults, cache, heard)
    task.cancel()
    await asyncio.wait((task,))


async def test_what_is_there_and_what_happens_reaches_the_cache() -> None:
    async with watching("a") as rig:
        assert rig.names() == ["a"]
        rig.server.put(POD.path("ns", "b"), pod("b"))
        rig.server.remove(POD.path("ns", "a"))
        await asyncio.sleep(1)
        assert rig.names() == ["b"]
        assert rig.heard == [GLM] * 3


async def test_after_410_all_objects_are_listed_again_and_none_is_missed() -> None:
    async with watching("a") as rig:
        rig.faults.before = lambda request: Unreachable("away")
        rig.server.remove(POD.path("ns", "a"))
        rig.server.put(POD.path("ns", "b"), pod("b"))
        rig.server.compact()
        rig.faults.before = lambda request: None
        await asyncio.sleep(30)
        assert rig.names() == ["b"]


async def test_the_last_state_stays_while_the_server_is_away() -> None:
    async with watching("a") as rig:
        rig.faults.before = lambda request: Unreachable("away")
        rig.server.compact()
        await asyncio.sleep(600)
        assert rig.names() == ["a"]
        assert len(rig.faults.seen) < 400
        rig.server.put(POD.path("ns", "b"), pod("b"))
        rig.faults.before = lambda request: None
        await asyncio.sleep(30)
        assert rig.names() == ["a", "b"]


async def test_a_refusal_is_waited_out() -> None:
    def forbidden(request: Request) -> Exception | None:
        return Refused(403, "Forbidden", "no rights")

    async with watching("a") as rig:
        rig.faults.before = forbidden
        rig.server.compact()
        await asyncio.sleep(60)
        rig.faults.before = lambda request: None
        rig.server.put(POD.path("ns", "b"), pod("b"))
        await asyncio.sleep(30)
        assert rig.names() == ["a", "b"]
