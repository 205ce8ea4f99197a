"""Kinds that a cluster need not have never keep the operator from its work, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import FakeApiServer

from autoglm.kube.kinds import OPTIONAL_CHILDREN, PROFILE, Key, Kind
from autoglm.kube.transport import Refused, Request, Unreachable
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import Caches
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.watches import ChangeHandlers, Watches

pytestmark = pytest.mark.looptime
MONITOR, SCALER = OPTIONAL_CHILDREN
Fault = Callable[[Request], Exception | None]


@dataclass
class Api(FakeApiServer):
    """Has the optional kinds `served`; `fault` may hang or refuse a request."""

    served: set[Kind] = field(default_factory=lambda: set(OPTIONAL_CHILDREN))
    fault: Fault = lambda _: None
    hangs: set[str] = field(default_factory=set)

    async def send(self, request: Request, timeout: float) -> bytes:
        if request.path in self.hangs:
            await asyncio.sleep(timeout)
            raise Unreachable("timed out")
        if error := self.fault(request):
            raise error
        for kind in (*OPTIONAL_CHILDREN, PROFILE):
            if request.path == f"/apis/{kind.api_version}":
                if kind not in self.served:
                    raise Refused(404, "NotFound", "no such group")
                return json.dumps({"resources": [{"kind": kind.kind}]}).encode()
        return await super().send(request, timeout)


@dataclass
class Rig:
    api: Api
    caches: Caches
    watches: Watches
    registry: CollectorRegistry
    changed: list[Key]
    profiles: list[Key]
    filled: asyncio.Event

    def usable(self) -> set[Kind]:
        return set(self.caches.optional_kinds)

    def metric(self, kind: Kind) -> float | None:
        name = "autoglm_operator_unavailable_kinds"
        return self.registry.get_sample_value(name, {"kind": kind.kind})


@asynccontextmanager
async def starting(api: Api, namespace: tuple[str, ...] = ()) -> AsyncIterator[Rig]:
    registry, caches, changed = CollectorRegistry(), Caches(), list[Key]()
    metrics = Metrics(registry)
    api.put("/apis/autoglm.io/v1alpha1/namespaces/ns/autoglmdeployments/glm", RESOURCE)
    kube = Kube(api, metrics, Limits(10, lambda: 0))
    profiles: list[Key] = []
    handlers = ChangeHandlers(changed.append, lambda _: None, profiles.append)
    settings = OperatorSettings(
        namespace=namespace, gateway_namespace="system", gateway_service="gateway"
    )
    watches = Watches(kube, caches, settings, handlers, metrics, Random(1))
    rig = Rig(api, caches, watches, registry, changed, profiles, asyncio.Event())

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            await watches.start(tasks)
            rig.filled.set()

    task = asyncio.create_task(run())
    yield rig
    task.cancel()
    await asyncio.wait((task,))


RESOURCE = {"metadata": {"name": "glm", "namespace": "ns"}}


def refusing(kind: Kind, status: int) -> Fault:
    def fault(request: Request) -> Exception | None:
        return Refused(status, "Reason", "no list") if request.path == kind.path() else None

    return fault


async def test_installed_kinds_are_listed_before_the_first_plan() -> None:
    async with starting(Api()) as rig:
        await asyncio.wait_for(rig.filled.wait(), 1)
        assert rig.usable() == {MONITOR, SCALER}
        assert rig.caches.unavailable_kinds == {}


async def test_kinds_that_are_not_installed_are_not_unavailable() -> None:
    async with starting(Api(served=set())) as rig:
        await asyncio.wait_for(rig.filled.wait(), 1)
        assert (rig.usable(), rig.caches.unavailable_kinds) == (set(), {})
        assert rig.metric(SCALER) == 0


@pytest.mark.parametrize("status", [403, 404, 500, 503])
async def test_a_kind_that_cannot_be_listed_does_not_block_and_is_reported(status: int) -> None:
    async with starting(Api(fault=refusing(SCALER, status))) as rig:
        await asyncio.wait_for(rig.filled.wait(), 10)
        await asyncio.sleep(10)
        assert rig.usable() == {MONITOR}
        assert f"{status} Reason: no list" in rig.caches.unavailable_kinds["ScaledObject"]
        assert (rig.metric(SCALER), rig.metric(MONITOR)) == (1, 0)


async def test_a_kind_that_hangs_does_not_block() -> None:
    async with starting(Api(hangs={SCALER.path()})) as rig:
        await asyncio.wait_for(rig.filled.wait(), 10)
        await asyncio.sleep(60)
        assert rig.usable() == {MONITOR}
        assert "timed out" in rig.caches.unavailable_kinds["ScaledObject"]


async def test_discovery_that_hangs_does_not_block() -> None:
    async with starting(Api(hangs={f"/apis/{SCALER.api_version}"})) as rig:
        await asyncio.wait_for(rig.filled.wait(), 10)
        await asyncio.sleep(60)
        assert "timed out" in rig.caches.unavailable_kinds["ScaledObject"]


async def test_a_kind_is_picked_up_once_it_can_be_listed_and_resources_are_reconciled() -> None:
    async with starting(Api(fault=refusing(SCALER, 500))) as rig:
        await asyncio.wait_for(rig.filled.wait(), 10)
        rig.changed.clear()
        rig.api.fault = lambda _: None
        await asyncio.sleep(30)
        assert rig.usable() == {MONITOR, SCALER}
        assert rig.caches.unavailable_kinds == {}
        assert rig.metric(SCALER) == 0
        assert Key("ns", "glm") in rig.changed


async def test_a_kind_that_was_listed_stays_in_use_while_it_cannot_be() -> None:
    async with starting(Api()) as rig:
        await asyncio.wait_for(rig.filled.wait(), 1)
        rig.api.fault = refusing(SCALER, 500)
        rig.api.compact()
        await asyncio.sleep(120)
        assert rig.usable() == {MONITOR, SCALER}


async def test_a_kind_that_is_uninstalled_is_forgotten_with_its_objects() -> None:
    api = Api()
    labels = {"autoglm.io/deployment": "glm"}
    scaler = {"metadata": {"name": "glm", "namespace": "ns", "labels": labels}}
    api.put(SCALER.path("ns", "glm"), scaler)
    async with starting(api) as rig:
        await asyncio.wait_for(rig.filled.wait(), 1)
        assert len(rig.caches.children[SCALER]) == 1
        api.served.clear()
        await asyncio.sleep(120)
        assert rig.usable() == set()
        assert len(rig.caches.children[SCALER]) == 0


async def test_a_required_kind_that_cannot_be_listed_is_named_and_waited_for() -> None:
    services = Kind("v1", "Service", "services")
    async with starting(Api(fault=refusing(services, 403))) as rig:
        await asyncio.sleep(60)
        assert not rig.filled.is_set()
        assert list(rig.watches.unsynced()) == ["Service"]
        assert "403 Reason: no list" in rig.watches.unsynced()["Service"]
        rig.api.fault = lambda _: None
        await asyncio.wait_for(rig.filled.wait(), 30)
        assert rig.watches.unsynced() == {}


async def test_profiles_are_watched_in_the_whole_cluster_and_their_changes_reported() -> None:
    api = Api(served={*OPTIONAL_CHILDREN, PROFILE})
    path = PROFILE.path("", "small")
    api.put(path, {"metadata": {"name": "small"}, "spec": {}})
    async with starting(api, namespace=("ns",)) as rig:
        await asyncio.wait_for(rig.filled.wait(), 1)
        assert PROFILE in rig.usable()
        assert rig.caches.profile("small") is not None
        assert rig.profiles == [Key("", "small")]


async def test_profiles_that_cannot_be_listed_are_unavailable_and_hold_up_nothing() -> None:
    api = Api(served={*OPTIONAL_CHILDREN, PROFILE}, fault=refusing(PROFILE, 403))
    async with starting(api) as rig:
        await asyncio.wait_for(rig.filled.wait(), 10)
        assert rig.usable() == {MONITOR, SCALER}
        assert "no list" in rig.caches.unavailable_kinds[PROFILE.kind]
