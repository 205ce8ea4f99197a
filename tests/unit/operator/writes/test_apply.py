"""Carrying out plans: order, conflicts, refusals, and what the caches know afterwards."""

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import FakeApiServer, Faults

from autoglm.kube.kinds import CHILDREN, RESOURCE, Key
from autoglm.kube.store import Cache
from autoglm.kube.transport import Refused, Request
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import ApplyFailures, Caches
from autoglm.operator.ownership.claims import Installation
from autoglm.operator.types import Conflict, Event, Plan, Raw, Ref, Rejection
from autoglm.operator.writes.apply import Applied, Applier
from autoglm.operator.writes.events import EventRecorder

pytestmark = pytest.mark.looptime
SERVICE = CHILDREN[1]
GLM = RESOURCE.path("ns", "glm")
BODY: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "glm", "namespace": "ns", "labels": {"autoglm.io/deployment": "glm"}},
    "spec": {"type": "ClusterIP", "ports": [{"port": 80}]},
}
CONFIG = BODY | {"kind": "ConfigMap", "spec": {}}


class Rig:
    def __init__(self) -> None:
        self.server = FakeApiServer()
        metadata = {"name": "glm", "namespace": "ns"}
        self.resource = self.server.put(GLM, {"metadata": metadata})
        self.faults = Faults(self.server)
        self.caches = Caches()
        self.confirmed: list[Raw] = []
        kube = Kube(self.faults, Metrics(CollectorRegistry()), Limits(3, lambda: 3))
        events = EventRecorder(kube, "me", lambda: 1000.0)
        self.apply = Applier(kube, self.caches, events, self._confirm, Installation())

    async def _confirm(self, resource: Raw) -> None:
        self.confirmed.append(resource)

    async def __call__(self, plan: Plan, known: tuple[Conflict, ...] = ()) -> Applied:
        return await self.apply(self.resource, plan, known)


def conflict_over(*fields: str) -> Refused:
    """In words that say nothing."""
    causes = [{"reason": "FieldManagerConflict", "message": "", "field": f} for f in fields]
    return Refused(409, "Conflict", "", causes=causes)


def manage(rig: Rig, *entries: tuple[str, str, str]) -> None:
    """Others own fields of the Service's spec: manager, operation, field."""
    fields = [
        {"manager": manager, "operation": how, "fieldsV1": {"f:spec": {f"f:{field}": {}}}}
        for manager, how, field in entries
    ]
    path = SERVICE.path("ns", "glm")
    found = rig.server.objects[path]
    rig.server.put(path, {**found, "metadata": found["metadata"] | {"managedFields": fields}})


def owned(body: Raw, resource: Raw) -> Raw:
    owner = {"uid": resource["metadata"]["uid"]}
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [owner]}}


def deployment(replicas: int, image: str = "echo:1") -> dict[str, Any]:
    template = {"metadata": {}, "spec": {"containers": [{"name": "engine", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**BODY["metadata"], "name": "glm-1"},
        "spec": {"replicas": replicas, "template": template},
    }


def dump(body: Raw) -> bytes:
    return json.dumps(body).encode()


def refuse_once(error: Refused) -> Any:
    left = [error]
    return lambda request: left.pop() if left and request.method == "PATCH" else None


async def test_a_plan_that_is_repeated_writes_nothing() -> None:
    rig, plan = Rig(), Plan(apply=(BODY,), status={"phase": "Ready"})
    assert (await rig(plan)).wrote
    rig.resource = rig.server.objects[GLM]
    assert await rig(plan) == Applied(False, ApplyFailures())


async def test_what_was_written_is_in_the_cache_at_once() -> None:
    rig = Rig()
    await rig(Plan(apply=(BODY,)))
    (seen,) = rig.caches.children[SERVICE].of(Key("ns", "glm"))
    assert seen["spec"] == BODY["spec"]


async def test_a_resource_is_confirmed_before_a_child_is_made_and_only_then() -> None:
    rig = Rig()
    await rig(Plan(apply=(BODY,)))
    assert rig.confirmed == [rig.resource]
    await rig(Plan(apply=(BODY,)))
    assert len(rig.confirmed) == 1


async def test_an_object_of_another_owner_is_not_changed_and_named() -> None:
    rig = Rig()
    path = SERVICE.path("ns", "glm")
    rig.server.put(path, {"metadata": {"name": "glm", "namespace": "ns"}, "spec": {"ports": []}})

    applied = await rig(Plan(apply=(BODY, CONFIG)))

    assert rig.server.objects[path]["spec"] == {"ports": []}
    (refusal,) = applied.failures.rejected
    assert (refusal.kind, refusal.name) == ("Service", "glm")
    assert "rename the resource" in refusal.message


async def test_a_child_of_another_resource_is_never_taken_over() -> None:
    """The Service `glm-pods` of `glm` has the name of the Service of a resource `glm-pods`."""
    rig = Rig()
    other = {"kind": "AutoGLMDeployment", "name": "other", "uid": "x", "controller": True}
    metadata = {**BODY["metadata"], "ownerReferences": [other]}
    path = SERVICE.path("ns", "glm")
    rig.caches.children[SERVICE].put(dump(rig.server.put(path, {**BODY, "metadata": metadata})))

    applied = await rig(Plan(apply=(owned(BODY, rig.resource),)))

    assert [(r.kind, r.name) for r in applied.failures.rejected] == [("Service", "glm")]
    assert rig.server.objects[path]["metadata"]["ownerReferences"] == [other]


async def test_a_child_of_an_earlier_resource_of_the_same_name_is_adopted() -> None:
    rig = Rig()
    earlier = {"kind": "AutoGLMDeployment", "name": "glm", "uid": "x", "controller": True}
    metadata = {**BODY["metadata"], "ownerReferences": [earlier]}
    found = rig.server.put(SERVICE.path("ns", "glm"), {**BODY, "metadata": metadata})
    rig.caches.children[SERVICE].put(dump(found))

    assert await rig(Plan(apply=(owned(BODY, rig.resource),))) == Applied(True, ApplyFailures())


@pytest.mark.parametrize("index", [1, 2, 3, 6])
async def test_nothing_that_could_start_pods_is_written_after_a_refusal(index: int) -> None:
    """Service, ServiceAccount, ConfigMap and NetworkPolicy."""
    rig = Rig()
    kind = CHILDREN[index]
    needed = {**BODY, "apiVersion": kind.api_version, "kind": kind.kind}
    rig.faults.before = lambda request: (
        Refused(403, "Forbidden", "exceeded quota") if f"/{kind.plural}/" in request.path else None
    )

    applied = await rig(Plan(apply=(needed, deployment(1))))

    assert [r.kind for r in applied.failures.rejected] == [kind.kind]
    assert CHILDREN[0].path("ns", "glm-1") not in rig.server.objects


async def test_replicas_that_run_can_be_reduced_after_a_refusal_but_not_changed() -> None:
    rig = Rig()
    await rig(Plan(apply=(deployment(2),)))
    rig.faults.before = lambda request: (
        Refused(403, "Forbidden", "exceeded quota") if "/services/" in request.path else None
    )
    path = CHILDREN[0].path("ns", "glm-1")

    await rig(Plan(apply=(BODY, deployment(1, image="x"))))
    assert rig.server.objects[path]["spec"]["replicas"] == 2
    await rig(Plan(apply=(BODY, deployment(3))))
    assert rig.server.objects[path]["spec"]["replicas"] == 2
    await rig(Plan(apply=(BODY, deployment(1))))
    assert rig.server.objects[path]["spec"]["replicas"] == 1


async def test_a_child_is_made_with_one_request() -> None:
    rig = Rig()
    await rig(Plan(apply=(BODY, CONFIG)))
    assert [r.method for r in rig.faults.seen] == ["PATCH", "PATCH"]


async def test_a_child_that_the_watch_has_not_delivered_yet_is_applied_all_the_same() -> None:
    rig = Rig()
    await rig(Plan(apply=(owned(BODY, rig.resource),)))
    rig.caches.children[SERVICE] = Cache(SERVICE)
    changed = {**owned(BODY, rig.resource), "spec": {"type": "NodePort"}}
    assert await rig(Plan(apply=(changed,))) == Applied(True, ApplyFailures())
    assert rig.server.objects[SERVICE.path("ns", "glm")]["spec"]["type"] == "NodePort"


async def test_manual_changes_are_reverted() -> None:
    rig = Rig()
    await rig(Plan(apply=(BODY,)))
    rig.faults.seen.clear()
    manage(rig, ("kubectl-edit", "Update", "type"))
    rig.faults.before = refuse_once(conflict_over(".spec.type"))
    assert (await rig(Plan(apply=(BODY,)))).failures == ApplyFailures()
    patches = [request for request in rig.faults.seen if request.method == "PATCH"]
    assert [dict(r.query)["force"] for r in patches] == ["false", "true"]
    assert rig.faults.seen[-1].body == BODY


async def test_another_appliers_field_is_left_out_and_reported() -> None:
    rig = Rig()
    await rig(Plan(apply=(BODY,)))
    manage(rig, ("argocd", "Apply", "type"), ("kubectl", "Update", "ports"))
    rig.faults.before = refuse_once(conflict_over(".spec.type", ".spec.ports"))
    applied = await rig(Plan(apply=(BODY,)))
    conflict = Conflict("Service", "glm", "argocd", ".spec.type")
    assert applied.failures == ApplyFailures(conflicts=(conflict,))
    sent = rig.faults.seen[-1].body
    assert sent and sent["spec"] == {"ports": [{"port": 80}]}


async def test_a_known_conflict_stays_known_until_the_child_is_tried_again() -> None:
    rig, known = Rig(), Conflict("Service", "glm", "argocd", ".spec.type")
    assert (await rig(Plan(), (known,))).failures.conflicts == (known,)
    assert (await rig(Plan(apply=(BODY,)), (known,))).failures.conflicts == ()


async def test_one_refusal_stops_neither_the_others_nor_the_status_but_the_deletes() -> None:
    rig = Rig()
    old = rig.server.put(SERVICE.path("ns", "old"), {"metadata": {"name": "old"}})
    rig.faults.before = refuse_once(Refused(403, "Forbidden", "exceeded quota"))
    ref = Ref("v1", "Service", "ns", "old", old["metadata"]["uid"])
    plan = Plan(apply=(BODY, CONFIG), delete=(ref,), status={"phase": "Degraded"})
    applied = await rig(plan)
    assert applied.failures.rejected == (Rejection("Service", "glm", "exceeded quota"),)
    assert CHILDREN[3].path("ns", "glm") in rig.server.objects
    assert SERVICE.path("ns", "old") in rig.server.objects
    assert rig.server.objects[GLM]["status"] == {"phase": "Degraded"}


async def test_a_deleted_child_is_out_of_the_cache_at_once() -> None:
    rig = Rig()
    await rig(Plan(apply=(BODY,)))
    uid = rig.server.objects[SERVICE.path("ns", "glm")]["metadata"]["uid"]
    assert (await rig(Plan(delete=(Ref("v1", "Service", "ns", "glm", uid),)))).wrote
    assert rig.caches.children[SERVICE].of(Key("ns", "glm")) == []


@pytest.mark.parametrize("uid", ["another", ""])
async def test_only_the_object_that_was_seen_is_deleted(uid: str) -> None:
    rig = Rig()
    rig.server.put(SERVICE.path("ns", "glm"), {"metadata": {"name": "glm"}})
    assert not (await rig(Plan(delete=(Ref("v1", "Service", "ns", "glm", uid),)))).wrote
    assert not (await rig(Plan(delete=(Ref("v1", "Service", "ns", "gone", uid),)))).wrote
    assert SERVICE.path("ns", "glm") in rig.server.objects


async def test_an_event_is_written_once_and_its_failure_fails_nothing() -> None:
    rig, event = Rig(), Event("Warning", "OutOfMemory", "ö" * 2000)
    await rig(Plan(events=(event, event)))
    (written,) = [r for r in rig.server.writes if "events.k8s.io" in r.path]
    assert written.body and written.body["regarding"]["uid"] == rig.resource["metadata"]["uid"]
    assert len(written.body["note"].encode()) == 1024

    def refuse(request: Request) -> Exception | None:
        return Refused(403, "Forbidden", "no rights")

    rig.faults.before = refuse
    assert not (await rig(Plan(events=(Event("Normal", "Other", "x"),)))).wrote


async def test_events_are_written_where_the_status_is_rejected() -> None:
    rig = Rig()
    too_large = Refused(413, "RequestEntityTooLarge", "etcdserver: request is too large")
    rig.faults.before = lambda r: too_large if r.path.endswith("/status") else None
    plan = Plan(status={"phase": "Failed"}, events=(Event("Warning", "InvalidSpec", "too long"),))

    with pytest.raises(Refused, match="too large"):
        await rig(plan)

    assert [w.body["reason"] for w in rig.server.writes if w.body] == ["InvalidSpec"]
