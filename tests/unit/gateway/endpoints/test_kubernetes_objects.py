import json
from typing import Any

import pytest
from tests.support.kube.objects import agd, endpoint_slice

from autoglm.api.spec.traffic import (
    Hedging,
    OutlierDetection,
    Retries,
    Routing,
    ServiceLevel,
    StreamRecovery,
    Tenancy,
    Timeouts,
)
from autoglm.gateway.endpoints.deployments import Resource, Rules
from autoglm.gateway.endpoints.kubernetes_objects import Mention, Slice, resource_of, slice_of
from autoglm.kube.kinds import Key

GLM = Key("default", "glm")


def read_slice(found: dict[str, Any]) -> Slice:
    return slice_of(json.dumps(found).encode())


def read_resource(found: dict[str, Any]) -> Resource:
    return resource_of(json.dumps(found).encode())


def is_usable(**conditions: Any) -> bool:
    found = endpoint_slice("glm", {"a": "10.0.0.1"}, conditions={"a": conditions})
    (mention,) = read_slice(found).mentions
    return mention.is_usable


def test_a_slice_names_pods_by_the_port_called_grpc() -> None:
    found = endpoint_slice("glm", {"a": "10.0.0.1"}, port=7)
    found["ports"].insert(0, {"name": "http", "port": 8000})
    mention = Mention("IPv4", "10.0.0.1", 7, "a", "", is_usable=True)
    assert read_slice(found) == Slice(GLM, (mention,))


def test_only_a_pod_that_is_ready_and_stays_is_usable() -> None:
    assert is_usable() and is_usable(ready=True, terminating=False)
    # Unknown is to be read as ready.
    assert is_usable(ready=None)
    assert not is_usable(ready=False)
    assert not is_usable(ready=True, terminating=True)


@pytest.mark.parametrize(
    "change",
    [
        {"ports": None},
        {"ports": [{"name": "renamed", "port": 50051}]},
        {"ports": [{"name": "grpc", "port": None}]},
        {"addressType": "FQDN"},
        {"endpoints": None},
        {"endpoints": [{"addresses": []}]},
    ],
)
def test_a_slice_that_names_no_address_to_dial_names_no_pod(change: dict[str, Any]) -> None:
    assert read_slice(endpoint_slice("glm", {"a": "10.0.0.1"}) | change) == Slice(GLM)


def test_slices_of_other_services_of_a_resource_name_no_pod() -> None:
    found = endpoint_slice("glm", {"a": "10.0.0.1"})
    found["metadata"]["labels"]["kubernetes.io/service-name"] = "glm"
    assert read_slice(found) == Slice(GLM)


def test_a_resource_is_known_by_its_names_and_rules() -> None:
    model = {"servedName": "glm-4", "aliases": ["a"], "adapters": [{"name": "lora", "uri": "x"}]}
    routing = {
        "timeouts": {"firstTokenSeconds": 1, "chunkSeconds": 2.5, "totalSeconds": 30},
        "retries": {"attempts": 1, "budgetRatio": 0},
        "policy": "LatencyAware",
        "slo": {"firstTokenSeconds": 0.5},
    }
    found = read_resource(agd("glm", spec={"model": model, "routing": routing}))
    assert found.names == ("glm-4", "a", "lora")
    assert found.rules.routing == Routing(
        policy="LatencyAware",
        slo=ServiceLevel(first_token_seconds=0.5),
        timeouts=Timeouts(first_token_seconds=1, chunk_seconds=2.5, total_seconds=30),
        retries=Retries(attempts=1, budget_ratio=0),
    )


def test_a_policy_of_a_newer_operator_is_left_to_the_gateway() -> None:
    found = read_resource(agd("glm", spec={"routing": {"policy": "Telepathic"}}))
    assert found.rules.routing.policy is None


def test_an_invalid_field_leaves_all_others_and_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    routing = {
        "timeouts": {"totalSeconds": -1, "chunkSeconds": 2},
        "retries": "many",
        "hedging": {"percentile": 95},
    }
    spec = {"routing": routing, "tenancy": {"prefixCache": "Shared"}, "model": {"aliases": ["a"]}}
    found = read_resource(agd("glm", spec=spec))
    assert found.names == ("glm", "a") and found.rules == Rules(
        routing=Routing(timeouts=Timeouts(chunk_seconds=2), hedging=Hedging(percentile=95)),
        tenancy=Tenancy(prefix_cache="Shared"),
    )
    (warning,) = caplog.messages
    assert "AutoGLMDeployment default/glm" in warning
    assert "spec.routing.timeouts.totalSeconds = -1: must be greater than 0" in warning
    assert 'spec.routing.retries = "many": must be a mapping' in warning


def test_fields_of_a_newer_operator_and_nulls_are_skipped_silently(
    caplog: pytest.LogCaptureFixture,
) -> None:
    routing: dict[str, Any] = {
        "timeouts": None,
        "newer": 1,
        "outlierDetection": {"newer": {}, "rampSeconds": None},
    }
    found = read_resource(agd("glm", spec={"routing": routing, "tenancy": None}))
    assert found.rules == Rules(routing=Routing(outlier_detection=OutlierDetection()))
    assert not caplog.messages


def test_a_resource_without_names_serves_its_own() -> None:
    assert read_resource(agd("glm")).names == ("glm",)


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ({}, "AutoGLMDeployment default/glm: not started yet"),
        ({"status": {"phase": "Loading"}}, "AutoGLMDeployment default/glm: Loading"),
        (
            {"status": {"phase": "Loading", "model": {"progress": "load 3.2 GB"}}},
            "AutoGLMDeployment default/glm: Loading (load 3.2 GB)",
        ),
        ({"spec": {"suspend": True}}, "AutoGLMDeployment default/glm is suspended"),
        (
            {
                "status": {
                    "phase": "Failed",
                    "model": {"lastFailure": {"reason": "OOMKilled", "message": "137\nsecond"}},
                }
            },
            "AutoGLMDeployment default/glm: Failed: OOMKilled: 137 second",
        ),
        (
            {"status": {"phase": "Ready", "model": {"lastFailure": {"reason": "Old"}}}},
            "AutoGLMDeployment default/glm: Ready",
        ),
    ],
)
def test_its_state_says_why_there_may_be_no_pod(parts: dict[str, Any], state: str) -> None:
    assert read_resource(agd("glm", **parts)).state == state


def test_a_state_is_bounded() -> None:
    failure = {"reason": "R", "message": "x" * 100_000}
    found = read_resource(agd("glm", status={"model": {"lastFailure": failure}}))
    assert len(found.state) == 300


@pytest.mark.parametrize(
    "spec",
    [{"routing": {"timeouts": {"totalSeconds": -1}}}, {"model": "glm"}, {"model": {"a": []}}],
)
def test_what_cannot_be_read_raises_value_error_or_is_skipped(spec: dict[str, Any]) -> None:
    try:
        assert read_resource(agd("glm", spec=spec)).names == ("glm",)
    except ValueError as error:
        assert "$." in str(error)


def _routed(**routing: Any) -> Routing:
    spec = {"model": {"servedName": "m"}, "routing": routing}
    return read_resource({"metadata": {"name": "a"}, "spec": spec}).rules.routing


def test_safeguards_are_read_as_the_spec_has_them() -> None:
    routing = _routed(
        hedging={"percentile": 95, "maxExtraRatio": 0.1},
        outlierDetection={"consecutiveFailures": 2, "newerField": 1, "rampSeconds": None},
        streamRecovery={"mode": "Replay", "maxAttempts": 2, "maxReplayTokens": 99},
    )
    assert routing.hedging == Hedging(percentile=95, max_extra_ratio=0.1)
    assert routing.outlier_detection == OutlierDetection(consecutive_failures=2)
    assert routing.stream_recovery == StreamRecovery(max_attempts=2, max_replay_tokens=99)
    assert _routed(streamRecovery={"mode": "Off"}).stream_recovery == StreamRecovery(mode="Off")


def test_safeguards_left_out_are_the_gateways() -> None:
    assert _routed() == Routing()
