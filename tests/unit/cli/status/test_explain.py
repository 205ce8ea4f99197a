"""Snapshots of the screen, and how each break is named."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoglm.cli.kube import ClusterState
from autoglm.cli.screen import Canvas
from autoglm.cli.status.explain import Explanation, explain, explain_text


def of(
    observed: ClusterState, now: float, name: str, change: Mapping[str, Any] | None = None
) -> Explanation:
    (resource,) = (r for r in observed.resources if r["metadata"]["name"] == name)
    return explain(replace(observed, resources=({**resource, **(change or {})},)), now)


def test_way_of_a_failing_resource(cluster: ClusterState, now: float) -> None:
    expected = Path(__file__).parents[1].joinpath("data").joinpath("explain_chat.txt").read_text()
    assert explain_text(of(cluster, now, "chat"), Canvas()) == expected


def test_healthy_resource_has_no_failed_step(cluster: ClusterState, now: float) -> None:
    explanation = of(cluster, now, "embed")
    assert {step.state for step in explanation.steps} == {"ok"}
    assert explanation.is_healthy
    assert "breaks off" not in explain_text(explanation, Canvas())


def test_resource_without_replicas_is_healthy(cluster: ClusterState, now: float) -> None:
    assert of(cluster, now, "night").is_healthy


def test_invalid_spec_names_the_field(cluster: ClusterState, now: float) -> None:
    explanation = of(cluster, now, "embed", {"spec": {"model": {"uri": "x"}, "replica": 2}})
    assert explanation.failed_step and explanation.failed_step.name == "Spec"
    assert "did you mean replicas?" in explanation.failed_step.pieces[0].found


def test_spec_that_the_operator_refuses_names_the_field(cluster: ClusterState, now: float) -> None:
    message = "spec.template.spec.hostNetwork = true: remove it"
    ready = {"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": message}
    status = {"observedGeneration": 1, "conditions": [ready]}
    failed_step = of(cluster, now, "embed", {"status": status}).failed_step
    assert failed_step and failed_step.name == "Spec"
    assert failed_step.pieces[0].found == message


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"operators": ()}, "Operator", "no accessible pod of it is ready"),
        ({}, "Operator", "check that it watches this namespace"),
    ],
)
def test_spec_without_a_reconcile_fails_the_operators_step(
    cluster: ClusterState, now: float, change: dict[str, Any], name: str, found: str
) -> None:
    explanation = of(replace(cluster, **change), now, "embed", {"status": {}})
    assert explanation.failed_step and explanation.failed_step.name == name
    assert found in explanation.failed_step.found


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"slices": ()}, "Endpoints", "0 of 0 addresses"),
        ({"routable": frozenset()}, "Gateways", "0 of 1 ready pods"),
        ({"routable": None, "gateways": ()}, "Gateways", "none is ready"),
        ({"children": ()}, "Children", "0 of 1"),
        ({"pods": ()}, "Pods", "none exists"),
    ],
)
def test_first_broken_step_is_named(
    cluster: ClusterState, now: float, change: dict[str, Any], name: str, found: str
) -> None:
    failed_step = of(replace(cluster, **change), now, "embed").failed_step
    assert failed_step and failed_step.name == name
    assert found in failed_step.found


@pytest.mark.parametrize(
    ("not_accessible", "step"),
    [("deployments", 2), ("networkpolicies", 2), ("endpointslices", 4), ("pods in all", 5)],
)
def test_what_may_not_be_read_is_unknown_and_not_broken(
    cluster: ClusterState, now: float, not_accessible: str, step: int
) -> None:
    kinds = {"deployments": "Deployment", "networkpolicies": "NetworkPolicy"}
    managed = [{"kind": kinds[not_accessible], "name": "embed"}] if not_accessible in kinds else []
    (embed,) = (r for r in cluster.resources if r["metadata"]["name"] == "embed")
    change = {"status": {**embed["status"], "managedResources": managed}}
    observed = replace(
        cluster,
        not_accessible=((f"{not_accessible} namespaces", "no"),),
        slices=(),
        gateways=(),
        routable=None,
    )
    if not_accessible != "endpointslices":
        observed = replace(observed, slices=cluster.slices)
    explanation = of(observed, now, "embed", change)
    states = {explanation.steps[step].state, *(p.state for p in explanation.steps[step].pieces)}
    assert "failed" not in states and (not_accessible == "deployments" or "unknown" in states)
