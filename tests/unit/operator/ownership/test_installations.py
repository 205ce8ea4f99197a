"""Two installations over one API server, in virtual time: no fights, and takeovers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.fake_cluster import resource
from tests.support.kube.fake_api_server import FakeApiServer, Faults

from autoglm.kube.kinds import LEASE, RESOURCE, Key, child_kind
from autoglm.kube.transport import Refused, Request
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import Caches
from autoglm.operator.ownership.claims import Installation
from autoglm.operator.ownership.installations import Installations
from autoglm.operator.plan import plan
from autoglm.operator.reconcile import Reconciler
from autoglm.operator.settings import OperatorSettings

pytestmark = pytest.mark.looptime
KEY = Key("ns", "m")
PATH = RESOURCE.path("ns", "m")
CONFIG = child_kind("v1", "ConfigMap")
TIMEOUT = 100.0


@dataclass
class Operator:
    """A leading operator of one installation, with caches and a connection of its own."""

    server: FakeApiServer
    installation: Installation
    lapsed: list[Key] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults, self.caches = Faults(self.server), Caches()
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        kube = Kube(self.faults, metrics, Limits(3, lambda: 3))
        namespace, _, name = self.installation.lease.partition("/")
        settings = OperatorSettings(
            inference_image=f"image-of-{self.installation.lease}:1",
            lease_namespace=namespace,
            lease_name=name,
            operator_class=self.installation.operator_class,
        )
        self.others = Installations(kube, self.installation, TIMEOUT, self.lapsed.append)
        self.reconciler = Reconciler(
            self.caches,
            kube,
            metrics,
            lambda _: None,
            lambda observed, now: plan(observed, settings, now),
            self.installation.lease,
            Random(1),
            self.others,
        )

    def hear(self) -> None:
        """The watches deliver what is there."""
        body = json.dumps(self.server.objects[PATH]).encode()
        self.caches.resources.put(body)
        self.reconciler.mark_seen(KEY)
        for kind, cache in self.caches.children.items():
            for path, found in list(self.server.objects.items()):
                if path.startswith(f"{kind.path('ns')}/"):
                    cache.put(json.dumps(found).encode())

    async def reconcile(self, times: int = 6) -> str:
        result = ""
        for _ in range(times):
            self.hear()
            result = (await self.reconciler(KEY)).result
        return result

    @property
    def writes(self) -> list[str]:
        return [r.path for r in self.faults.seen if r.is_write and "/events" not in r.path]

    def left(self) -> float | None:
        return self.registry.get_sample_value("autoglm_operator_resources_of_other_installations")


def pair(**spec: Any) -> tuple[FakeApiServer, Operator, Operator]:
    server = FakeApiServer()
    server.put(PATH, dict(resource(**spec)) | {"metadata": {"name": "m", "namespace": "ns"}})
    return server, Operator(server, Installation("a/op")), Operator(server, Installation("b/op"))


def claim(server: FakeApiServer) -> str:
    found = server.objects[CONFIG.path("ns", "m")]["metadata"]["annotations"]
    return str(found["autoglm.io/operator"])


def renew(server: FakeApiServer, installation: Installation) -> None:
    namespace, _, name = installation.lease.partition("/")
    server.put(LEASE.path(namespace, name), {"metadata": {"name": name, "namespace": namespace}})


async def test_a_resource_that_another_installation_runs_is_left_to_it_and_reported_once() -> None:
    server, a, b = pair()
    await a.reconcile()
    assert await b.reconcile() == "claimed"
    assert b.writes == []
    events = [o for path, o in server.objects.items() if "/events/" in path]
    reported = [e for e in events if e["reason"] == "ClaimedByAnother"]
    assert len(reported) == 1
    assert "a/op" in reported[0]["note"] and "spec.operatorClass" in reported[0]["note"]
    assert (a.left(), b.left()) == (0, 1)
    assert await a.reconcile() == "unchanged"


async def test_of_two_that_start_together_the_one_that_creates_first_has_it() -> None:
    server, a, b = pair()
    b.hear()  # Before anything is there.
    await a.reconcile()
    assert (await b.reconciler(KEY)).result == "claimed"
    assert [path for path in b.writes if path != CONFIG.path("ns", "m")] == []
    assert claim(server) == "a/op"


async def test_an_operator_of_another_class_writes_nothing() -> None:
    server, a, _ = pair(operatorClass="x")
    x = Operator(server, Installation("x/op", "x"))
    assert await a.reconcile() == "other_class"
    assert a.writes == []
    assert await x.reconcile() == "unchanged"
    assert claim(server) == "x/op"


async def test_a_change_of_class_hands_the_resource_over_at_once() -> None:
    server, a, _ = pair()
    x = Operator(server, Installation("x/op", "x"))
    await a.reconcile()
    found = server.objects[PATH]
    server.put(PATH, found | {"spec": found["spec"] | {"operatorClass": "x"}})
    assert await x.reconcile() == "unchanged"
    before = len(a.writes)
    assert await a.reconcile() == "other_class"
    assert len(a.writes) == before
    assert claim(server) == "x/op"


async def test_resources_of_a_dead_installation_are_taken_over_after_the_timeout() -> None:
    server, a, b = pair()
    await a.reconcile()
    await b.reconcile()
    task = asyncio.create_task(b.others.run())
    for _ in range(50):  # Renewed for 500 s.
        renew(server, a.installation)
        await asyncio.sleep(10)
    assert b.lapsed == []
    await asyncio.sleep(TIMEOUT * 0.8)
    assert b.lapsed == []
    while not b.lapsed:  # noqa: ASYNC110 -- in virtual time
        await asyncio.sleep(1)
    assert asyncio.get_running_loop().time() < 500 + TIMEOUT * 1.3
    assert await b.reconcile() == "unchanged"
    assert claim(server) == "b/op"
    assert b.left() == 0
    # The first one is back, and yields.
    renew(server, a.installation)
    before = len(a.writes)
    assert await a.reconcile() == "claimed"
    assert len(a.writes) == before
    task.cancel()


async def test_a_lease_that_may_not_be_read_keeps_its_claims() -> None:
    server, a, b = pair()
    await a.reconcile()
    await b.reconcile()

    def forbidden(request: Request) -> Exception | None:
        return Refused(403, "Forbidden", "no") if "/leases/" in request.path else None

    b.faults.before = forbidden
    task = asyncio.create_task(b.others.run())
    await asyncio.sleep(TIMEOUT * 20)
    assert b.lapsed == []
    # The way out that the event names.
    found = server.objects[CONFIG.path("ns", "m")]
    server.put(
        CONFIG.path("ns", "m"), found | {"metadata": found["metadata"] | {"annotations": {}}}
    )
    assert await b.reconcile() == "unchanged"
    assert claim(server) == "b/op"
    task.cancel()
