"""Conflicts of an apply by owner; reverted children are applied with growing pauses."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autoglm.operator.types import Conflict
from autoglm.operator.writes.conflicts import (
    FREE,
    PAUSES,
    Contested,
    Reverts,
    contested,
    contested_fields,
    reverted_fields,
)

KEY = ("Deployment", "glm")
CONTAINER = {"name": "engine", "image": "a:1", "args": ["x"]}


def test_fields_in_conflict_are_those_of_their_cause_whatever_its_text() -> None:
    conflict = {"reason": "FieldManagerConflict", "message": "in any words"}
    causes = [
        conflict | {"field": ".spec.replicas"},
        conflict | {"field": ".metadata.labels.team"},
        conflict | {"field": ".spec.replicas"},
        {"reason": "UnexpectedServerResponse", "message": "unknown"},
    ]
    assert contested_fields(causes) == (".spec.replicas", ".metadata.labels.team")


def body(replicas: int = 2) -> dict[str, Any]:
    template = {"spec": {"containers": [CONTAINER]}}
    spec = {"replicas": replicas, "template": template}
    return {"kind": "Deployment", "metadata": {"name": "glm", "annotations": {}}, "spec": spec}


def revert(times: int, every: float, replicas: int = 2) -> tuple[Reverts, list[float]]:
    """Something changes it back `every` seconds after each time it was set; those times."""
    reverts, rng, now, applied = Reverts(), Random(1), 0.0, list[float]()
    while len(applied) < times:
        if reverts.may_apply(body(replicas), now):
            applied.append(now)
            reverts.applied(body(replicas), body(9), now, rng)
        now += every
    return reverts, applied


def test_a_few_manual_changes_are_reverted_at_once() -> None:
    _, applied = revert(FREE + 2, every=0.2)
    assert applied[-1] <= 0.2 * (FREE + 2)


@given(st.floats(0.05, 5))
def test_a_controller_that_keeps_reverting_causes_a_bounded_number_of_writes(every: float) -> None:
    _, applied = revert(FREE + 12, every)
    pauses = [later - sooner for sooner, later in zip(applied, applied[1:], strict=False)]
    assert pauses[-1] >= PAUSES.most * 0.7
    assert sum(a <= 3600 for a in applied) <= FREE + 14


def test_a_new_declaration_is_applied_at_once() -> None:
    reverts, applied = revert(FREE + 5, every=0.2)
    assert not reverts.may_apply(body(), applied[-1] + 1)
    assert reverts.may_apply(body(replicas=3), applied[-1] + 1)


def test_changes_far_apart_cause_no_pause() -> None:
    reverts, _ = revert(20, every=3600)
    assert reverts.next_due(20 * 3600.0) is None


def test_other_children_do_not_wait() -> None:
    reverts, applied = revert(FREE + 5, every=0.2)
    other = body() | {"metadata": {"name": "other"}}
    assert reverts.may_apply(other, applied[-1])


def test_the_pause_is_over_when_it_says() -> None:
    reverts, applied = revert(FREE + 3, every=0.2)
    due = reverts.next_due(applied[-1])
    assert due is not None
    assert not reverts.may_apply(body(), applied[-1] + due - 0.1)
    assert reverts.may_apply(body(), applied[-1] + due + 0.1)


def owned(manager: str, fields: dict[str, Any], operation: str = "Update", **more: str) -> Any:
    return {"manager": manager, "operation": operation, "fieldsV1": fields} | more


REPLICAS: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
IMAGE: dict[str, Any] = {
    "f:spec": {
        "f:template": {
            "f:spec": {"f:containers": {'k:{"name":"engine"}': {".": {}, "f:image": {}}}}
        }
    }
}


def live(*entries: Any, replicas: int = 9, image: str = "b:2") -> dict[str, Any]:
    found = body(replicas)
    found["metadata"] = found["metadata"] | {"managedFields": list(entries)}
    found["spec"]["template"] = {"spec": {"containers": [CONTAINER | {"image": image}]}}
    return found


def test_the_field_and_its_manager_are_named() -> None:
    found = live(owned("vpa", REPLICAS), owned("patcher", IMAGE))
    assert [(c.manager, c.field) for c in reverted_fields(body(), found)] == [
        ("vpa", ".spec.replicas"),
        ("patcher", '.spec.template.spec.containers[name="engine"].image'),
    ]


def test_fields_that_are_as_wanted_and_our_own_are_not_named() -> None:
    found = live(
        owned("autoglm-operator", REPLICAS, "Apply"),
        owned("kube-controller-manager", REPLICAS, subresource="status"),
        owned("patcher", IMAGE),
        image="a:1",
    )
    assert list(reverted_fields(body(), found)) == [Conflict(*KEY, "", "", is_reverted=True)]


def test_what_is_deleted_again_and_again_has_no_manager() -> None:
    assert list(reverted_fields(body(), None)) == [Conflict(*KEY, "", "", is_reverted=True)]


TEAM: dict[str, Any] = {"f:metadata": {"f:labels": {"f:example.com/team": {}}}}
PORTS: dict[str, Any] = {
    "f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}}}}
}
FINALIZER: dict[str, Any] = {"f:metadata": {"f:finalizers": {".": {}, 'v:"a/b"': {}}}}


def test_an_update_is_manual_and_an_apply_is_not() -> None:
    found = live(
        owned("autoglm-operator", REPLICAS | TEAM, "Apply"),
        owned("kubectl", REPLICAS, subresource="scale"),
        owned("argocd-controller", TEAM, "Apply"),
    )
    assert contested([".spec.replicas", ".metadata.labels.example.com/team"], found) == (
        Contested(".spec.replicas", "kubectl", True),
        Contested(".metadata.labels.example.com/team", "argocd-controller", False),
    )


def test_a_field_that_an_applier_shares_with_an_update_is_the_appliers() -> None:
    found = live(owned("kubectl-edit", REPLICAS), owned("flux", REPLICAS, "Apply"))
    assert contested([".spec.replicas"], found) == (Contested(".spec.replicas", "flux", False),)


def test_a_field_that_none_owns_any_more_is_not_left_to_anyone() -> None:
    assert contested([".spec.replicas"], live()) == (Contested(".spec.replicas", "", True),)


def test_paths_are_written_as_in_conflicts() -> None:
    """By fieldpath.PathElement.String of structured-merge-diff."""
    fields = [
        '.spec.template.spec.containers[name="engine"].image',
        '.spec.template.spec.containers[name="engine"]',
        '.spec.ports[port=80,protocol="TCP"].name',
        '.metadata.finalizers[="a/b"]',
        ".metadata.finalizers",
    ]
    found = live(*(owned("other", each, "Apply") for each in (IMAGE, PORTS, FINALIZER)))
    assert {each.manager for each in contested(fields, found)} == {"other"}
