"""Failures of pods have one reason, and one message with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_cluster import LATER, NOW, pod_condition

from autoglm.inference.diagnosis import engine_dead
from autoglm.operator.status.pods import Failure, creation_failure, failures, present


def pod(name: str = "p", *, conditions: Any = (), **state: Any) -> dict[str, Any]:
    container = {"name": "engine", "image": "img:1", "ready": False, "state": {}, **state}
    limits = {"limits": {"memory": "4Gi"}}
    return {
        "metadata": {"name": name, "labels": {"autoglm.io/revision": "r"}},
        "spec": {"containers": [{"name": "engine", "resources": limits}]},
        "status": {"containerStatuses": [container], "conditions": list(conditions)},
    }


def found(*pods: dict[str, Any], warnings: Any = ()) -> list[Failure]:
    return failures(present(pods, None, NOW), warnings)


def only(*pods: dict[str, Any], warnings: Any = ()) -> Failure:
    (failure,) = found(*pods, warnings=warnings)
    return failure


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def warning(reason: str, message: str, kind: str = "Pod", name: str = "p") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"kind": kind, "name": name}}


def test_a_pod_that_loads_has_no_failure() -> None:
    assert found(pod(state={"running": {}})) == []


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"])
def test_an_image_that_is_not_available_is_one_reason(reason: str) -> None:
    failure = only(pod(**waiting(reason, 'Back-off pulling image "img:1"')))

    assert failure.reason == "ImagePullBackOff"
    assert 'cannot pull image "img:1"; check spec.engine.image' in failure.message
    assert (failure.pod, failure.revision, failure.is_own) == ("p", "r", True)


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImageNeverPull"])
def test_an_image_of_ours_that_no_registry_has_is_to_be_built_and_loaded(reason: str) -> None:
    ours = pod(image="open-autoglm-inference:0.1.0-cpu", **waiting(reason, "not found"))

    failure = only(ours)

    assert failure.message.startswith(
        "not found; no registry publishes open-autoglm-inference:0.1.0-cpu: build it in a clone by "
        "`make images IMAGES=inference-cpu`"
    )


def test_repeated_attempts_of_kubelet_are_one_failure() -> None:
    tries = only(pod(**waiting("ErrImagePull", "not found: img:1")))
    waits = only(
        pod(
            **waiting(
                "ImagePullBackOff",
                'Back-off pulling image "img:1": ErrImagePull: not found: img:1',
            )
        )
    )

    assert tries == waits


def test_the_engines_own_diagnosis_is_passed_on() -> None:
    diagnosis = engine_dead("CUDA error")
    crashed = pod(
        **waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container"),
        lastState=ended(diagnosis.exit_code, str(diagnosis)),
    )

    assert only(crashed) == Failure("EngineDead", diagnosis.message, "p", "r", 80)


def test_a_crash_is_reported_also_during_the_next_attempt() -> None:
    again = pod(state={"running": {}}, lastState=ended(66, "ModelNotFound: no such model"))

    assert only(again).reason == "ModelNotFound"


def test_an_engine_that_has_recovered_is_no_failure() -> None:
    recovered = pod(
        ready=True,
        lastState=ended(80, "EngineDead: x"),
        conditions=[pod_condition("Ready", "True")],
    )

    assert found(recovered) == []


def test_memory_names_the_limit() -> None:
    failure = only(pod(lastState=ended(137, reason="OOMKilled")))

    assert (failure.reason, failure.exit_code) == ("OOMKilled", 137)
    assert failure.message.startswith("engine was killed at its memory limit of 4Gi; raise")


def test_without_a_diagnosis_the_last_line_of_the_log_is_shown() -> None:
    failure = only(pod(lastState=ended(1, "trace\nlast words\n")))

    assert failure.reason == "ContainerFailed"
    assert failure.message.startswith("engine ended with exit code 1: last words; kubectl logs")


def test_the_schedulers_words_are_passed_on_and_not_the_revisions_fault() -> None:
    unschedulable = pod_condition(
        "PodScheduled", "False", reason="Unschedulable", message="0/3 nodes: no gpu."
    )

    failure = only(pod(conditions=[unschedulable]))

    assert failure.message.startswith("0/3 nodes: no gpu; add nodes")
    assert (failure.reason, failure.is_own) == ("Unschedulable", False)


def test_a_volume_that_cannot_be_mounted_is_reported_for_waiting_pods() -> None:
    events = [warning("FailedMount", 'secret "x" not found')]

    assert only(pod(), warnings=events).reason == "FailedMount"
    ready = pod(ready=True, conditions=[pod_condition("Ready", "True")])
    assert found(ready, warnings=events) == []


def test_pods_that_end_are_no_failure() -> None:
    leaving = pod(lastState=ended(137))
    leaving["metadata"]["deletionTimestamp"] = LATER

    assert found(leaving) == []


@pytest.mark.parametrize(
    ("message", "is_own"),
    [
        ('pods "m-1-abc" is forbidden: exceeded quota: gpus', False),
        ('pods "m-1-xyz" is forbidden: violates PodSecurity "restricted"', True),
    ],
)
def test_pods_that_could_not_be_created_are_reported_without_their_changing_names(
    message: str, is_own: bool
) -> None:
    events = [warning("FailedCreate", message, "ReplicaSet", "m-1-5d8f")]

    (failure,) = creation_failure(events, "m-1", "1")

    assert failure.reason == "FailedCreate"
    assert failure.message.startswith("pods is forbidden")
    assert (failure.revision, failure.is_own) == ("1", is_own)
    assert list(creation_failure(events, "m", "1")) == []


def test_a_revision_whose_pods_cannot_be_created_is_reported() -> None:
    message = 'replicasets.apps "m-1-5d8f" is forbidden: exceeded quota: q'
    events = [warning("ReplicaSetCreateError", message, "Deployment", "m-1")]

    (failure,) = creation_failure(events, "m-1", "1")

    assert (failure.reason, failure.is_own) == ("ReplicaSetCreateError", False)
    assert failure.message.endswith("; raise the quota, or lower spec.resources or spec.replicas")
