import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoglm.cli.kube import ClusterState
from autoglm.cli.status.cluster import screen
from autoglm.cli.status.remedies import BY_EXIT_CODE, BY_REASON, remedy
from autoglm.cli.status.view import FailedCondition, View, views
from autoglm.common.process import ExitCode


def view_of(observed: ClusterState, now: float, name: str) -> View:
    return next(view for view in views(observed, now) if view.name == name)


def with_status(observed: ClusterState, name: str, status: Mapping[str, Any]) -> ClusterState:
    changed = [
        {**r, "status": status} if r["metadata"]["name"] == name else r for r in observed.resources
    ]
    return replace(observed, resources=tuple(changed))


def pod(**status: Any) -> dict[str, Any]:
    labels = {"autoglm.io/deployment": "embed"}
    metadata = {"name": "embed-0a1b2c3d-1-a", "namespace": "models", "labels": labels}
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Pending", **status}}


def test_ready_and_suspended_are_well_and_a_failing_one_is_not(
    cluster: ClusterState, now: float
) -> None:
    found = {view.name: view.is_healthy for view in views(cluster, now)}
    assert found == {"chat": False, "embed": True, "night": True}


def test_status_of_an_older_spec_counts_for_nothing(cluster: ClusterState, now: float) -> None:
    embed = next(r for r in cluster.resources if r["metadata"]["name"] == "embed")
    stale = with_status(cluster, "embed", {**embed["status"], "observedGeneration": 0})
    view = view_of(stale, now, "embed")
    assert not view.is_healthy
    assert "component=operator" in view.advice[0]


def test_resource_that_no_operator_has_seen_is_not_well(cluster: ClusterState, now: float) -> None:
    view = view_of(with_status(cluster, "embed", {}), now, "embed")
    assert (view.phase, view.is_healthy) == ("Unknown", False)


def test_condition_the_wrong_way_round_is_stated(cluster: ClusterState, now: float) -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Ok"},
        {"type": "Progressing", "status": "False", "reason": "Done"},
        {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"},
        {"type": "Routable", "status": "Unknown", "reason": "NoGateway", "message": "none answers"},
    ]
    status = {"observedGeneration": 1, "conditions": conditions}
    view = view_of(with_status(cluster, "embed", status), now, "embed")
    assert view.conditions == (FailedCondition("Routable", "Unknown", "NoGateway", "none answers"),)
    assert not view.is_healthy


def test_operators_condition_counts_without_a_response_of_a_gateway(
    cluster: ClusterState, now: float
) -> None:
    observed = replace(cluster, routable=None)
    # chat's status says that every gateway has every ready pod, embed's says nothing of it.
    assert view_of(observed, now, "chat").routable == 1
    assert view_of(observed, now, "embed").routable is None


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
                        "image": "open-autoglm:0.1.0",
                        "state": {"waiting": {"reason": "ErrImageNeverPull"}},
                    }
                ]
            },
            "ErrImageNeverPull",
            "make cluster-load IMAGES=open-autoglm",
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
    cluster: ClusterState, now: float, status: dict[str, Any], state: str, advice: str
) -> None:
    (replica,) = view_of(replace(cluster, pods=(pod(**status),)), now, "embed").replicas
    assert replica.state == state
    assert advice in replica.remedy


def test_advice_for_a_failed_pull_names_the_image_of_the_last_failure(
    cluster: ClusterState, now: float
) -> None:
    embed = next(r for r in cluster.resources if r["metadata"]["name"] == "embed")
    message = 'cannot pull image "registry.example.com/ai/open-autoglm-inference:0.1.0"'
    last = {"reason": "ImagePullBackOff", "message": message, "pod": "p"}
    ready = {"type": "Ready", "status": "False", "reason": "ImagePullBackOff", "message": message}
    status = {**embed["status"], "conditions": [ready], "model": {"lastFailure": last}}
    advice = view_of(with_status(cluster, "embed", status), now, "embed").advice
    assert "make images IMAGES=inference REGISTRY=registry.example.com/ai" in advice[0]


def test_only_a_replica_that_has_run_has_a_log_to_read(cluster: ClusterState, now: float) -> None:
    embed = next(r for r in cluster.resources if r["metadata"]["name"] == "embed")
    last = {"reason": "Unschedulable", "message": "no GPU", "pod": pod()["metadata"]["name"]}
    ready = {"type": "Ready", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    status = {**embed["status"], "conditions": [ready], "model": {"lastFailure": last}}
    observed = replace(with_status(cluster, "embed", status), pods=(pod(),))
    assert not any("kubectl logs" in line for line in view_of(observed, now, "embed").advice)


def test_operators_own_event_is_not_shown_beside_its_condition(
    cluster: ClusterState, now: float
) -> None:
    event = {
        "metadata": {"name": "e", "namespace": "models"},
        "involvedObject": {"kind": "AutoGLMDeployment", "name": "chat"},
        "lastTimestamp": "2026-01-01T11:59:00Z",
    }
    warnings = tuple({**event, "reason": reason} for reason in ("OutOfMemory", "Other"))
    view = view_of(replace(cluster, warnings=warnings), now, "chat")
    assert [warning.reason for warning in view.warnings] == ["Other"]


def test_every_reason_with_a_remedy_is_one_of_the_operators() -> None:
    documented = Path(__file__).parents[4].joinpath("docs/conditions.md").read_text()
    assert [reason for reason in BY_REASON if f"`{reason}`" not in documented] == []


def test_every_exit_code_of_the_engine_has_a_remedy() -> None:
    assert set(BY_EXIT_CODE) == set(ExitCode)


def test_exit_code_says_more_than_the_reason() -> None:
    assert remedy("CrashLoopBackOff", 69) == BY_EXIT_CODE[ExitCode.OUT_OF_MEMORY]
    assert remedy("OOMKilled", 137) == BY_REASON["OOMKilled"]
    assert remedy("Whatever", 1) == ""


def test_autoscaler_that_keda_made_is_shown(cluster: ClusterState, now: float) -> None:
    children = [
        {**c, "metadata": {**c["metadata"], "name": "keda-hpa-embed"}}
        for c in cluster.children
        if c["kind"] == "HorizontalPodAutoscaler"
    ]
    found = view_of(replace(cluster, children=tuple(children)), now, "embed").autoscaler
    assert found and (found.min_replicas, found.max_replicas) == (1, 4)


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_have_the_same_facts(
    cluster: ClusterState, now: float, output: str, load: Callable[[str], Any]
) -> None:
    page, code = screen(cluster, "", output, now)
    document = load(page)
    assert (code, document["ready"]) == (3, False)
    assert [item["name"] for item in document["items"]] == ["chat", "embed", "night"]
    assert document["items"][0]["failure"]["exit_code"] == 69


def test_nothing_there_is_no_failure(now: float) -> None:
    page, code = screen(ClusterState(resources=()), "", "text", now)
    assert (code, "autoglm deploy" in page) == (0, True)
