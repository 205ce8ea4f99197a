"""A child is applied when something that we want is not there, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from autoglm.operator.types import Conflict
from autoglm.operator.writes.diff import current_conflicts, differs, with_hash, without


def deployment(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "engine", "image": "a"} | (container or {})]
    return {
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": containers}}} | spec,
    }


def test_a_missing_child_is_applied() -> None:
    assert differs(deployment(), None)


@pytest.mark.parametrize(
    "live",
    [
        deployment(),
        deployment(paused=False),
        deployment({"terminationMessagePath": "/x", "env": [{"name": "FOREIGN"}]}),
    ],
    ids=["same", "defaulted", "foreign"],
)
def test_what_others_add_is_no_difference(live: dict[str, Any]) -> None:
    assert not differs(deployment(), live)


@pytest.mark.parametrize("live", [deployment(replicas=2), deployment({"image": "b"}), {"kind": 1}])
def test_a_changed_field_is_applied_again(live: dict[str, Any]) -> None:
    assert differs(deployment(), live)


def test_named_lists_are_compared_by_name() -> None:
    one, two = {"name": "A", "value": "1"}, {"name": "B", "value": "2"}

    assert not differs(deployment({"env": [one, two]}), deployment({"env": [two, one]}))
    assert differs(deployment({"env": [one, two]}), deployment({"env": [one]}))


def test_other_lists_are_one_value() -> None:
    assert differs(deployment({"args": ["a"]}), deployment({"args": ["a", "b"]}))


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same"),
    [("1000m", "1", True), ("0.5", "500m", True), ("1024Mi", "1Gi", True), ("1", "2", False)],
)
def test_quantities_are_compared_by_value(ours: str, theirs: str, is_same: bool) -> None:
    def requesting(memory: str) -> dict[str, Any]:
        return deployment({"resources": {"limits": {"memory": memory}}})

    assert differs(requesting(ours), requesting(theirs)) is not is_same


def test_text_is_never_taken_for_a_quantity() -> None:
    def with_value(value: str) -> dict[str, Any]:
        return deployment({"env": [{"name": "A", "value": value}]})

    assert differs(with_value("1000m"), with_value("1"))


def test_empty_values_may_be_left_out() -> None:
    assert not differs(deployment(emptyDir={}, items=[]), deployment())


def test_a_field_that_is_no_longer_declared_is_a_difference() -> None:
    before, after = deployment({"args": ["a"]}), deployment()

    assert not differs(with_hash(before), with_hash(before))
    assert differs(with_hash(after), with_hash(before))


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    body = deployment()
    reordered = dict(reversed(body.items()))

    assert with_hash(body) == with_hash(reordered)


def test_a_field_that_another_applier_owns_is_not_applied_again() -> None:
    conflict = Conflict("Deployment", "d", "argo", ".spec.replicas")
    live = deployment(replicas=5)

    assert differs(deployment(), live)
    assert not differs(deployment(), live, [conflict])


def test_a_conflict_stands_while_the_values_differ() -> None:
    conflict = Conflict("Deployment", "d", "argo", ".spec.replicas")
    key = ("Deployment", "d")

    assert current_conflicts([conflict], [deployment()], {key: deployment(replicas=5)}) == [
        conflict
    ]
    assert current_conflicts([conflict], [deployment()], {key: deployment()}) == []
    assert current_conflicts([conflict], [], {}) == []


BODY: dict[str, Any] = {
    "metadata": {"labels": {"team": "a", "app.kubernetes.io/name": "x"}},
    "spec": {
        "ports": [{"port": 80, "protocol": "TCP", "name": "http"}, {"port": 81, "protocol": "TCP"}],
        "containers": [{"name": "engine", "image": "i", "env": [{"name": "A", "value": "1"}]}],
        "finalizers": ["a", "b"],
        "rules": [1, 2, 3],
    },
}


@pytest.mark.parametrize(
    ("field", "path"),
    [
        (".metadata.labels.team", ("metadata", "labels", "team")),
        (
            ".metadata.labels.app.kubernetes.io/name",
            ("metadata", "labels", "app.kubernetes.io/name"),
        ),
        ('.spec.ports[port=80,protocol="TCP"].name', ("spec", "ports", 0, "name")),
        ('.spec.ports[port=81,protocol="TCP"]', ("spec", "ports", 1)),
        ('.spec.containers[name="engine"].image', ("spec", "containers", 0, "image")),
        (
            '.spec.containers[name="engine"].env[name="A"].value',
            ("spec", "containers", 0, "env", 0, "value"),
        ),
        ('.spec.finalizers[="b"]', ("spec", "finalizers", 1)),
        (".spec.rules[2]", ("spec", "rules", 2)),
        (".spec.rules", ("spec", "rules")),
    ],
)
def test_exactly_the_field_is_left_out(field: str, path: tuple[Any, ...]) -> None:
    expected = without(BODY, ())
    parent: Any = expected
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    assert without(BODY, [field]) == expected


@pytest.mark.parametrize("field", [".spec.no.such", ".spec.ports[port=9].name", "", ".", "[0]"])
def test_a_field_that_is_not_declared_changes_nothing(field: str) -> None:
    assert without(BODY, [field]) == BODY


def test_the_body_itself_is_not_changed() -> None:
    before = repr(BODY)
    without(BODY, [".metadata.labels.team", ".spec.rules"])
    assert repr(BODY) == before
