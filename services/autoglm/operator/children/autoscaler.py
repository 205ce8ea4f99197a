"""The autoscaler: a HorizontalPodAutoscaler, or KEDA's ScaledObject if selected. Pure.

Either writes the resource's scale subresource; only the operator writes Deployments. Metrics of the
engine are Pods metrics with the names in SIGNALS (docs/scaling.md has the adapter's rules for
them); KEDA queries Prometheus itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from autoglm.api import API_VERSION, KIND
from autoglm.api.spec.operations import Metric
from autoglm.operator.children.metadata import Body, Context, child
from autoglm.operator.types import ObservedObjects

SCALED_OBJECT: Final = "ScaledObject"
_RESOURCES = {"CPU": "cpu", "Memory": "memory"}


@dataclass(frozen=True, slots=True)
class Signal:
    """A metric of the engine, as each autoscaler reads it."""

    pods_metric: str
    """Its name in the custom metrics API."""
    query: str
    """PromQL over the pods that {pods} selects; a sum, unless `is_whole`."""
    unit: float = 1.0
    """The metric's value for a target of 1."""
    is_whole: bool = False
    """The result is a value of all replicas, not divided by their number."""


SIGNALS: Final = {
    "QueueDepth": Signal("vllm_num_requests_waiting", "sum(vllm:num_requests_waiting{pods})"),
    "RunningRequests": Signal("vllm_num_requests_running", "sum(vllm:num_requests_running{pods})"),
    "KVCacheUsage": Signal(
        "vllm_kv_cache_usage_perc", "sum(vllm:kv_cache_usage_perc{pods})", unit=0.01
    ),
    "TimeToFirstToken": Signal(
        "vllm_time_to_first_token_seconds_p95",
        "histogram_quantile(0.95, sum by (le) "
        "(rate(vllm:time_to_first_token_seconds_bucket{pods}[2m])))",
        is_whole=True,
    ),
}


def autoscaler(context: Context, observed: ObservedObjects) -> Body | None:
    """Return the HorizontalPodAutoscaler or KEDA's ScaledObject; None if replicas are fixed, or if
    KEDA is not installed."""
    scaling = context.spec.scaling
    if scaling is None or context.spec.suspend:
        return None
    target = {"apiVersion": API_VERSION, "kind": KIND, "name": context.name}
    directions = {
        "scaleUp": scaling.behavior.scale_up,
        "scaleDown": scaling.behavior.scale_down,
    }
    # The fields of Kubernetes; only those that are set.
    rules = {
        name: fields
        for name, direction in directions.items()
        if (fields := direction.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    }
    behavior = {"behavior": rules} if rules else {}
    if scaling.actuator == "hpa":
        spec = {
            "scaleTargetRef": target,
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [_hpa_metric(metric) for metric in scaling.metrics],
            **behavior,
        }
        return child(context, "autoscaling/v2", "HorizontalPodAutoscaler") | {"spec": spec}
    if SCALED_OBJECT not in observed.optional_kinds:
        return None
    spec = {
        "scaleTargetRef": target,
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        "triggers": [_trigger(metric, context) for metric in scaling.metrics],
    }
    if behavior:
        spec["advanced"] = {"horizontalPodAutoscalerConfig": behavior}
    return child(context, "keda.sh/v1alpha1", SCALED_OBJECT) | {"spec": spec}


def _hpa_metric(metric: Metric) -> Body:
    if resource := _RESOURCES.get(metric.type):
        target = {"type": "Utilization", "averageUtilization": round(metric.target)}
        return {"type": "Resource", "resource": {"name": resource, "target": target}}
    signal = SIGNALS[metric.type]
    target = {"type": "AverageValue", "averageValue": quantity(metric.target * signal.unit)}
    return {"type": "Pods", "pods": {"metric": {"name": signal.pods_metric}, "target": target}}


def quantity(value: float) -> str:
    """Return a quantity as the API server writes it: in whole units, or in thousandths."""
    thousandths = max(1, round(value * 1000))
    whole, rest = divmod(thousandths, 1000)
    return f"{thousandths}m" if rest else str(whole)


def _trigger(metric: Metric, context: Context) -> Body:
    if resource := _RESOURCES.get(metric.type):
        metadata = {"value": str(round(metric.target))}
        return {"type": resource, "metricType": "Utilization", "metadata": metadata}
    signal = SIGNALS[metric.type]
    pods = f'{{namespace="{context.namespace}",pod=~"{context.name}-[0-9a-f]{{8}}-.*"}}'
    return {
        "type": "prometheus",
        "metricType": "Value" if signal.is_whole else "AverageValue",
        "metadata": {
            "serverAddress": context.settings.prometheus_url
            or f"http://prometheus-operated.{context.settings.monitoring_namespace}.svc:9090",
            "query": signal.query.replace("{pods}", pods),
            "threshold": f"{metric.target * signal.unit:g}",
        },
    }
