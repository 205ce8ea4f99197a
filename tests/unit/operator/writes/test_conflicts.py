"""Conflicts of server-side apply: who owns a field, and a body without it."""

from typing import Any

import pytest

from autoglm.operator.writes.conflicts import Contested, contested, without

CAUSES = [
    {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "kubectl-edit" using apps/v1 at 2026-01-01T00:00:00Z',
        "field": ".spec.replicas",
    },
    {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "kubectl" with subresource "scale" using apps/v1',
        "field": ".spec.replicas",
    },
    {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "argocd-controller"',
        "field": ".metadata.labels.team",
    },
    {"reason": "UnexpectedServerResponse", "message": "unknown"},
]
BODY: dict[str, Any] = {
    "metadata": {"labels": {"team": "a", "app.kubernetes.io/name": "x"}},
    "spec": {
        "ports": [{"port": 80, "protocol": "TCP", "name": "http"}, {"port": 81, "protocol": "TCP"}],
        "containers": [{"name": "engine", "image": "i", "env": [{"name": "A", "value": "1"}]}],
        "finalizers": ["a", "b"],
        "rules": [1, 2, 3],
    },
}


def test_an_update_is_by_hand_and_an_apply_is_not() -> None:
    assert contested(CAUSES) == (
        Contested(".spec.replicas", "kubectl-edit", True),
        Contested(".spec.replicas", "kubectl", True),
        Contested(".metadata.labels.team", "argocd-controller", False),
    )


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
