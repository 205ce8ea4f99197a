"""PodMonitor: selects the replicas' metrics for the Prometheus operator. Pure."""

from __future__ import annotations

from autoglm.operator.children.metadata import Body, Context, child, selector
from autoglm.operator.observed import Observed

POD_MONITOR = "PodMonitor"


def is_wanted(context: Context, observed: Observed) -> bool:
    return context.spec.observability.pod_monitor and POD_MONITOR in observed.optional_kinds


def pod_monitor(context: Context) -> Body:
    spec = {
        "selector": {"matchLabels": selector(context.name)},
        "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics"}],
    }
    return child(context, "monitoring.coreos.com/v1", POD_MONITOR) | {"spec": spec}
