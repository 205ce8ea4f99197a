"""Snapshots of the screen, and how each break is named."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoglm.cli.kube import Look
from autoglm.cli.screen import Canvas
from autoglm.cli.status.explain import explain_text
from autoglm.cli.status.explain_view import Explanation, explain


def of(look: Look, now: float, name: str, change: Mapping[str, Any] | None = None) -> Explanation:
    (resource,) = (r for r in look.resources if r["metadata"]["name"] == name)
    return explain(replace(look, resources=({**resource, **(change or {})},)), now)


def test_way_of_a_failing_resource(cluster: Look, now: float) -> None:
    expected = Path(__file__).parents[1].joinpath("data").joinpath("explain_chat.txt").read_text()
    assert explain_text(of(cluster, now, "chat"), Canvas()) == expected


def test_way_of_one_that_is_well_does_not_break_off(cluster: Look, now: float) -> None:
    explanation = of(cluster, now, "embed")
    assert {step.state for step in explanation.steps} == {"ok"}
    assert explanation.is_well
    assert "breaks off" not in explain_text(explanation, Canvas())


def test_nothing_wanted_and_nothing_there_is_well(cluster: Look, now: float) -> None:
    assert of(cluster, now, "night").is_well


def test_invalid_spec_names_the_field(cluster: Look, now: float) -> None:
    explanation = of(cluster, now, "embed", {"spec": {"model": {"uri": "x"}, "replica": 2}})
    assert explanation.broken and explanation.broken.name == "Spec"
    assert "did you mean replicas?" in explanation.broken.pieces[0].found


def test_spec_that_the_operator_refuses_names_the_field(cluster: Look, now: float) -> None:
    message = "spec.template.spec.hostNetwork = true: remove it"
    ready = {"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": message}
    status = {"observedGeneration": 1, "conditions": [ready]}
    broken = of(cluster, now, "embed", {"status": status}).broken
    assert broken and broken.name == "Spec"
    assert broken.pieces[0].found == message


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"operators": ()}, "Operator", "none is ready"),
        ({}, "Operator", "does it watch this namespace?"),
    ],
)
def test_spec_that_the_operator_ignored_is_the_operators_fault(
    cluster: Look, now: float, change: dict[str, Any], name: str, found: str
) -> None:
    explanation = of(replace(cluster, **change), now, "embed", {"status": {}})
    assert explanation.broken and explanation.broken.name == name
    assert found in explanation.broken.found


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"slices": ()}, "Endpoints", "0 of 0 addresses"),
        ({"routable": frozenset()}, "Gateways", "0 of 1 ready pods"),
        ({"routable": None, "gateways": ()}, "Gateways", "none is ready"),
        ({"children": ()}, "Children", "0 of 1"),
        ({"pods": ()}, "Pods", "there is none"),
    ],
)
def test_first_broken_step_is_named(
    cluster: Look, now: float, change: dict[str, Any], name: str, found: str
) -> None:
    broken = of(replace(cluster, **change), now, "embed").broken
    assert broken and broken.name == name
    assert found in broken.found


@pytest.mark.parametrize(
    ("unseen", "step"),
    [("deployments", 2), ("networkpolicies", 2), ("endpointslices", 4), ("pods in all", 5)],
)
def test_what_may_not_be_read_is_unknown_and_not_broken(
    cluster: Look, now: float, unseen: str, step: int
) -> None:
    kinds = {"deployments": "Deployment", "networkpolicies": "NetworkPolicy"}
    managed = [{"kind": kinds[unseen], "name": "embed"}] if unseen in kinds else []
    (embed,) = (r for r in cluster.resources if r["metadata"]["name"] == "embed")
    change = {"status": {**embed["status"], "managedResources": managed}}
    look = replace(
        cluster, unseen=((f"{unseen} namespaces", "no"),), slices=(), gateways=(), routable=None
    )
    if unseen != "endpointslices":
        look = replace(look, slices=cluster.slices)
    explanation = of(look, now, "embed", change)
    states = {explanation.steps[step].state, *(p.state for p in explanation.steps[step].pieces)}
    assert "wrong" not in states and (unseen == "deployments" or "unknown" in states)
