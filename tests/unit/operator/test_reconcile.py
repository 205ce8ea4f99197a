"""A reconcile: convergence, rejections, and no children for a deleted resource."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import FakeApiServer, Faults

from autoglm.kube.kinds import CHILDREN, RESOURCE, Key
from autoglm.kube.transport import Refused, Request
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator import reconcile
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import Caches
from autoglm.operator.ownership.claims import Installation
from autoglm.operator.ownership.installations import Installations
from autoglm.operator.reconcile import ChildrenRejected, Reconciler, ReconcileResult
from autoglm.operator.types import ObservedObjects, Plan

pytestmark = pytest.mark.looptime
KEY = Key("ns", "glm")
PATH = RESOURCE.path("ns", "glm")
CONFIG = CHILDREN[3]
Decide = Callable[[ObservedObjects, datetime], Plan]


def config(observed: ObservedObjects, now: datetime) -> Plan:
    """Plan one ConfigMap, and a status with the number of those that exist."""
    resource, have = observed.resource, len(observed.children)
    owner = {"uid": resource["metadata"]["uid"]}
    metadata = {"name": "glm", "namespace": "ns", "ownerReferences": [owner]}
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata | {"labels": {"autoglm.io/deployment": "glm"}},
    }
    status: dict[str, Any] = {"phase": "Ready" if have else "Pending", "children": have}
    if observed.rejected:
        status["refused"] = [r.message for r in observed.rejected]
    known = resource.get("status")
    return Plan(apply=() if have else (body,), status=None if known == status else status)


class Rig:
    def __init__(self, decide: Decide = config) -> None:
        self.server = FakeApiServer()
        self.faults = Faults(self.server)
        self.caches, self.registry = Caches(), CollectorRegistry()
        metrics = Metrics(self.registry)
        kube = Kube(self.faults, metrics, Limits(3, lambda: 3))
        alone = Installations(kube, Installation(), 300.0, lambda _: None)
        self.reconcile = Reconciler(
            self.caches, kube, metrics, lambda _: None, decide, "me", Random(1), alone
        )

    def deliver(self) -> None:
        """The watch delivers the resource as it is."""
        self.caches.resources.put(json.dumps(self.server.objects[PATH]).encode())
        self.reconcile.mark_seen(KEY)

    def create(self) -> None:
        self.server.put(PATH, {"metadata": {"name": "glm", "namespace": "ns"}})
        self.deliver()

    def phase(self, name: str) -> float | None:
        return self.registry.get_sample_value("autoglm_operator_resources", {"phase": name})


async def test_reconciles_repeat_until_there_is_nothing_to_write() -> None:
    rig = Rig()
    rig.create()
    results = [(await rig.reconcile(KEY)).result for _ in range(4)]
    assert results == ["written", "written", "unchanged", "unchanged"]  # children, then status
    assert rig.server.objects[PATH]["status"] == {"phase": "Ready", "children": 1}
    assert (rig.phase("Ready"), rig.phase("Pending"), rig.reconcile.is_busy) == (1, 0, False)


async def test_each_reconcile_is_a_span_with_its_plan_and_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(reconcile, "tracer", provider.get_tracer("test"))
    rig = Rig()
    rig.create()
    await rig.reconcile(KEY)
    (span,) = spans.get_finished_spans()
    assert span.name == "reconcile"
    assert span.attributes == {
        "k8s.namespace.name": "ns",
        "autoglm.deployment": "glm",
        "autoglm.plan.apply": 1,
        "autoglm.plan.delete": 0,
        "autoglm.result": "written",
    }


async def test_the_first_status_comes_after_the_children_and_at_the_next_reconcile() -> None:
    rig = Rig()
    rig.create()
    await rig.reconcile(KEY)
    assert CONFIG.path("ns", "glm") in rig.server.objects
    assert "status" not in rig.server.objects[PATH]
    await rig.reconcile(KEY)
    assert rig.server.objects[PATH]["status"] == {"phase": "Ready", "children": 1}


async def test_a_plan_that_never_settles_is_repeated_with_growing_delays() -> None:
    numbers = iter(range(100))

    def never_settled(observed: ObservedObjects, now: datetime) -> Plan:
        return Plan(status={"n": next(numbers)})

    rig = Rig(never_settled)
    rig.create()
    delays = [(await rig.reconcile(KEY)).requeue_after or 0 for _ in range(12)]
    assert delays[0] < 0.3 and delays[-1] > 40


async def test_the_next_reconcile_observes_what_was_rejected() -> None:
    rig = Rig()
    rig.create()

    def refuse(request: Request) -> Exception | None:
        if CONFIG.plural in request.path:
            return Refused(403, "Forbidden", "exceeded quota")
        return None

    rig.faults.before = refuse
    for _ in range(2):
        with pytest.raises(ChildrenRejected, match="exceeded quota"):
            await rig.reconcile(KEY)
    assert rig.server.objects[PATH]["status"]["refused"] == ["exceeded quota"]
    rig.faults.before = lambda request: None
    assert (await rig.reconcile(KEY)).result == "written"
    assert CONFIG.path("ns", "glm") in rig.server.objects


async def test_no_child_is_created_for_a_resource_whose_deletion_was_not_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autoglm.operator.reconcile._FRESH_SECONDS", 0.0)
    rig = Rig()
    rig.create()
    rig.server.remove(PATH)
    assert (await rig.reconcile(KEY)).result == "gone"
    assert (rig.server.objects, rig.server.writes, len(rig.caches.resources)) == ({}, [], 0)


async def test_no_child_is_created_for_a_new_resource_of_the_same_name_before_it_is_observed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autoglm.operator.reconcile._FRESH_SECONDS", 0.0)
    rig = Rig()
    rig.create()
    rig.server.remove(PATH)
    rig.server.put(PATH, {"metadata": {"name": "glm", "namespace": "ns"}})
    assert await rig.reconcile(KEY) == ReconcileResult("gone", requeue_after=0.0)
    assert rig.server.writes == []
    assert (await rig.reconcile(KEY)).result == "written"


async def test_of_a_resource_that_is_being_deleted_only_the_status_is_written() -> None:
    def decide(observed: ObservedObjects, now: datetime) -> Plan:
        return replace(config(observed, now), status={"phase": "Terminating"})

    rig = Rig(decide)
    rig.create()
    metadata = rig.server.objects[PATH]["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    rig.server.put(PATH, {"metadata": metadata})
    rig.deliver()
    assert (await rig.reconcile(KEY)).result == "gone"
    assert [request.path for request in rig.server.writes] == [f"{PATH}/status"]
    assert rig.server.objects[PATH]["status"] == {"phase": "Terminating"}


async def test_a_resource_that_is_gone_before_its_last_status_is_no_failure() -> None:
    def decide(observed: ObservedObjects, now: datetime) -> Plan:
        return Plan(status={"phase": "Terminating"})

    rig = Rig(decide)
    rig.create()
    metadata = rig.server.objects[PATH]["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    rig.server.put(PATH, {"metadata": metadata})
    rig.deliver()
    rig.server.remove(PATH)
    assert (await rig.reconcile(KEY)).result == "gone"


async def test_a_deleted_resource_is_not_counted() -> None:
    rig = Rig()
    rig.create()
    await rig.reconcile(KEY)
    assert rig.phase("Pending") == 1
    rig.caches.resources.forget(KEY, rig.server.objects[PATH]["metadata"]["uid"])
    await rig.reconcile(KEY)
    assert rig.phase("Pending") == 0


async def test_a_child_that_another_controller_reverts_is_applied_with_growing_pauses() -> None:
    def decide(observed: ObservedObjects, now: datetime) -> Plan:
        made = config(observed, now)
        if observed.children and observed.children[0].get("data") != {"a": "ours"}:
            applied = config(ObservedObjects(observed.resource), now).apply[0]
            body = {**applied, "data": {"a": "ours"}}
            made = Plan(apply=(body,))
        seen.append(observed.reverted)
        return made

    seen: list[Any] = []
    rig = Rig(decide)
    rig.create()
    path, writes, loop = CONFIG.path("ns", "glm"), 0, asyncio.get_running_loop()
    while loop.time() < 3600:
        ended = await rig.reconcile(KEY)
        if path in rig.server.objects and rig.server.objects[path].get("data") == {"a": "ours"}:
            writes += 1
            entry = {"manager": "rival", "operation": "Update"}
            fields: dict[str, Any] = {"fieldsV1": {"f:data": {"f:a": {}}}}
            found = rig.server.objects[path]
            metadata = found["metadata"] | {"managedFields": [entry | fields]}
            theirs = rig.server.put(path, found | {"metadata": metadata, "data": {"a": "theirs"}})
            rig.caches.children[CONFIG].put(json.dumps(theirs).encode())
        await asyncio.sleep(min(1.0, ended.requeue_after or 1.0))

    assert 5 <= writes <= 20
    assert [(c.manager, c.field) for c in seen[-1]] == [("rival", ".data.a")]
