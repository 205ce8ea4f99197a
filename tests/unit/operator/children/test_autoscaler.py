"""Signals of the spec become metrics that an autoscaler can read."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_cluster import resource

from autoglm.api import parse
from autoglm.operator.children.autoscaler import SIGNALS, autoscaler, quantity
from autoglm.operator.children.metadata import Context
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import ObservedObjects

SETTINGS = OperatorSettings()
TARGET = {"apiVersion": "autoglm.io/v1alpha1", "kind": "AutoGLMDeployment", "name": "m"}


def built(*kinds: str, suspend: bool = False, **scaling: Any) -> dict[str, Any] | None:
    document = resource(scaling={"maxReplicas": 4, **scaling}, suspend=suspend)
    observed = ObservedObjects(document, optional_kinds=frozenset(kinds))
    return autoscaler(Context(parse(document), SETTINGS), observed)


def hpa(**scaling: Any) -> dict[str, Any]:
    body = built(**scaling)
    assert body is not None
    assert body["kind"] == "HorizontalPodAutoscaler"
    return dict(body["spec"])


def test_the_autoscaler_scales_the_resource_and_not_a_deployment() -> None:
    assert hpa()["scaleTargetRef"] == TARGET


def test_processors_and_memory_are_resource_metrics() -> None:
    spec = hpa(metrics=[{"type": "CPU", "target": 70}, {"type": "Memory", "target": 80}])

    assert spec["metrics"] == [
        {
            "type": "Resource",
            "resource": {
                "name": name,
                "target": {"type": "Utilization", "averageUtilization": percent},
            },
        }
        for name, percent in (("cpu", 70), ("memory", 80))
    ]


@pytest.mark.parametrize(
    ("kind", "target", "name", "value"),
    [
        ("QueueDepth", 4, "vllm_num_requests_waiting", "4"),
        ("RunningRequests", 2.5, "vllm_num_requests_running", "2500m"),
        ("KVCacheUsage", 80, "vllm_kv_cache_usage_perc", "800m"),
        ("TimeToFirstToken", 0.5, "vllm_time_to_first_token_seconds_p95", "500m"),
    ],
)
def test_signals_of_the_engine_are_pods_metrics(
    kind: str, target: float, name: str, value: str
) -> None:
    (metric,) = hpa(metrics=[{"type": kind, "target": target}])["metrics"]

    pods = {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": value}}
    assert metric == {"type": "Pods", "pods": pods}


def test_behavior_is_passed_on_as_given() -> None:
    rules = {
        "stabilizationWindowSeconds": 60,
        "selectPolicy": "Min",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 30}],
    }

    assert hpa(behavior={"scaleDown": rules})["behavior"] == {"scaleDown": rules}
    assert "behavior" not in hpa()


def test_keda_scales_where_it_is_installed() -> None:
    metrics = [{"type": "QueueDepth", "target": 4}, {"type": "CPU", "target": 70}]
    body = built("ScaledObject", actuator="keda", minReplicas=0, metrics=metrics)

    assert body is not None
    spec = body["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 4)
    assert spec["scaleTargetRef"] == TARGET
    queue, cpu = spec["triggers"]
    assert queue["metadata"] == {
        "serverAddress": "http://prometheus-operated.monitoring.svc:9090",
        "query": 'sum(vllm:num_requests_waiting{namespace="ns",pod=~"m-[0-9a-f]{8}-.*"})',
        "threshold": "4",
    }
    assert cpu == {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}


def test_nothing_scales_without_keda_or_while_suspended() -> None:
    assert built(actuator="keda") is None
    assert built(suspend=True) is None


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (0.8, "800m"), (2.5, "2500m"), (0.0001, "1m"), (30, "30")]
)
def test_quantities_are_written_as_the_api_server_writes_them(value: float, text: str) -> None:
    assert quantity(value) == text


def test_every_signal_is_one_that_a_replica_exports() -> None:
    known = (
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:time_to_first_token_seconds",
    )

    assert all(any(name in signal.query for name in known) for signal in SIGNALS.values())
