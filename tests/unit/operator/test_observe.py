"""A reconcile observes a resource, its children and all that concerns it, and nothing else."""

import json
from typing import Any

import pytest

from autoglm.api.labels import DEPLOYMENT
from autoglm.kube.kinds import CHILDREN, OPTIONAL_CHILDREN, POD, RESOURCE, WARNING, Key, Kind
from autoglm.kube.store import Head, Metadata, Regarding
from autoglm.operator.observe import ApplyFailures, Caches, observe, warning_owner
from autoglm.operator.types import Conflict, ObservedObjects

GLM = Key("ns", "glm")
NOTHING = ApplyFailures()
CONFLICT = Conflict("Service", "glm", "argocd", ".spec.type")


def body(kind: Kind, name: str, owner: str = "uid-glm", **more: Any) -> bytes:
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "labels": {DEPLOYMENT: "glm"},
        "ownerReferences": [{"uid": owner}],
    } | more.pop("metadata", {})
    return json.dumps({"kind": kind.kind, "metadata": metadata} | more).encode()


def filled() -> Caches:
    made = Caches()
    made.resources.put(body(RESOURCE, "glm"))
    return made


def observe_glm(seen: Caches, last: ApplyFailures = NOTHING) -> ObservedObjects:
    observed = observe(seen, GLM, lambda _: None, last)
    assert observed is not None
    return observed


def test_children_are_those_that_the_resource_owns() -> None:
    seen = filled()
    seen.children[CHILDREN[1]].put(body(CHILDREN[1], "mine"))
    seen.children[CHILDREN[1]].put(body(CHILDREN[1], "labelled", owner="other"))
    seen.children[CHILDREN[0]].put(body(CHILDREN[0], "mine-too"))
    names = [(c["kind"], c["metadata"]["name"]) for c in observe_glm(seen).children]
    assert names == [("Deployment", "mine-too"), ("Service", "mine")]


def test_a_missing_resource_is_not_observed() -> None:
    assert observe(Caches(), GLM, lambda _: None, ApplyFailures()) is None


def test_warnings_come_oldest_first_and_bounded() -> None:
    seen = filled()
    for i in range(60):
        about = {"kind": "Pod", "namespace": "ns", "name": "glm-0123abcd-77f-abcde"}
        time = {"lastTimestamp": f"2026-01-01T00:{59 - i % 60:02}:00Z"}
        seen.warnings.put(body(WARNING, f"w{i:02}", involvedObject=about, **time))
    times = [w["lastTimestamp"] for w in observe_glm(seen).warnings]
    assert times == sorted(times) and len(times) == 50


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("Pod", "glm-0123abcd-77f6c9-x2x4z", "glm"),
        ("Pod", "glm-4-9b-0123abcd-77f6c9-x2x4z", "glm-4-9b"),
        ("ReplicaSet", "glm-0123abcd-77f6c9", "glm"),
        ("Deployment", "glm-0123abcd", "glm"),
        ("HorizontalPodAutoscaler", "glm", "glm"),
        ("Pod", "somebody-elses", None),
        ("Node", "glm-0123abcd", None),
    ],
)
def test_warnings_belong_to_the_resource_that_the_regarded_object_names(
    kind: str, name: str, expected: str | None
) -> None:
    head = Head(Metadata("e", "ns"), Regarding(kind, "ns", name))
    assert warning_owner(head) == (Key("ns", expected) if expected else None)


def managed_by(manager: str, operation: str) -> dict[str, Any]:
    return {"managedFields": [{"manager": manager, "operation": operation}]}


@pytest.mark.parametrize(
    ("entry", "stands"),
    [
        (managed_by("argocd", "Apply"), True),
        (managed_by("argocd", "Update"), False),
        (managed_by("flux", "Apply"), False),
        ({}, False),
    ],
)
def test_a_conflict_stands_while_the_other_applier_has_a_say(
    entry: dict[str, Any], stands: bool
) -> None:
    seen = filled()
    seen.children[CHILDREN[1]].put(body(CHILDREN[1], "glm", metadata=entry))
    assert observe_glm(seen, ApplyFailures((CONFLICT,))).conflicts == (
        (CONFLICT,) if stands else ()
    )


def test_pods_and_optional_kinds_are_seen() -> None:
    seen = filled()
    seen.pods.put(body(POD, "p"))
    seen.optional_kinds = frozenset(OPTIONAL_CHILDREN[:1])
    observed = observe_glm(seen)
    assert [p["metadata"]["name"] for p in observed.pods] == ["p"]
    assert observed.optional_kinds == {"PodMonitor"}
