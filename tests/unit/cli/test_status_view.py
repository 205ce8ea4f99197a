from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from autoglm.cli.kube import Look
from autoglm.cli.remedies import BY_EXIT_CODE, BY_REASON, remedy
from autoglm.cli.status_view import Statement, View, views
from autoglm.inference.diagnosis import ExitCode


def view_of(look: Look, now: float, name: str) -> View:
    return next(view for view in views(look, now) if view.name == name)


def with_status(look: Look, name: str, status: Mapping[str, Any]) -> Look:
    changed = [
        {**r, "status": status} if r["metadata"]["name"] == name else r for r in look.resources
    ]
    return replace(look, resources=tuple(changed))


def pod(**status: Any) -> dict[str, Any]:
    labels = {"autoglm.io/deployment": "embed"}
    metadata = {"name": "embed-0a1b2c3d-1-a", "namespace": "models", "labels": labels}
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Pending", **status}}


def test_ready_and_suspended_are_well_and_a_failing_one_is_not(cluster: Look, now: float) -> None:
    found = {view.name: view.is_well for view in views(cluster, now)}
    assert found == {"chat": False, "embed": True, "night": True}


def test_status_of_an_older_spec_counts_for_nothing(cluster: Look, now: float) -> None:
    embed = next(r for r in cluster.resources if r["metadata"]["name"] == "embed")
    stale = with_status(cluster, "embed", {**embed["status"], "observedGeneration": 0})
    view = view_of(stale, now, "embed")
    assert not view.is_well
    assert "component=operator" in view.advice[0]


def test_resource_that_no_operator_has_seen_is_not_well(cluster: Look, now: float) -> None:
    view = view_of(with_status(cluster, "embed", {}), now, "embed")
    assert (view.phase, view.is_well) == ("Unknown", False)


def test_condition_the_wrong_way_round_is_stated(cluster: Look, now: float) -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Ok"},
        {"type": "Progressing", "status": "False", "reason": "Done"},
        {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"},
        {"type": "Routable", "status": "Unknown", "reason": "NoGateway", "message": "none answers"},
    ]
    status = {"observedGeneration": 1, "conditions": conditions}
    view = view_of(with_status(cluster, "embed", status), now, "embed")
    assert view.statements == (Statement("Routable", "Unknown", "NoGateway", "none answers"),)
    assert not view.is_well


def test_routable_is_unknown_where_no_gateway_was_asked(cluster: Look, now: float) -> None:
    assert view_of(replace(cluster, routable=None), now, "chat").routable is None


@pytest.mark.parametrize(
    ("status", "state", "advice"),
    [
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes have enough GPUs",
                    }
                ]
            },
            "Pending",
            "precheck",
        ),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            "ImagePullBackOff",
            "imagePullSecrets",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "engine",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                    }
                ]
            },
            "CrashLoopBackOff",
            "memory",
        ),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "ContainerCreating",
            "",
        ),
    ],
)
def test_pod_says_why_it_does_not_serve(
    cluster: Look, now: float, status: dict[str, Any], state: str, advice: str
) -> None:
    (replica,) = view_of(replace(cluster, pods=(pod(**status),)), now, "embed").replicas
    assert replica.state == state
    assert advice in replica.remedy


def test_every_exit_code_of_the_engine_has_a_remedy() -> None:
    assert set(BY_EXIT_CODE) == set(ExitCode)


def test_exit_code_says_more_than_the_reason() -> None:
    assert remedy("CrashLoopBackOff", 69) == BY_EXIT_CODE[ExitCode.OUT_OF_MEMORY]
    assert remedy("OOMKilled", 137) == BY_REASON["OOMKilled"]
    assert remedy("Whatever", 1) == ""
