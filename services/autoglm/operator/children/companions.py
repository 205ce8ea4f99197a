"""Children beside the pods: ConfigMap, ServiceAccount, Services, budget and PodMonitor. Pure.

The ConfigMap has environment variables that do not depend on the revision. Settings of a revision
(model, engine, limits) are in its pod template, so that an old replica that restarts during a
rollout does not change. The ServiceAccount has no rights; its name has a suffix, so that a resource
cannot be named like an existing account.
"""

from __future__ import annotations

from typing import Final

from autoglm.api.labels import GRPC_PORT, HTTP_PORT, METRICS_PORT, pods_service
from autoglm.operator.children.metadata import Body, Context, child, selector

SERVICE_ACCOUNT: Final = "ServiceAccount"
POD_MONITOR: Final = "PodMonitor"


def config_map(context: Context) -> Body:
    """Return the ConfigMap, the first child, which carries the claim of the installation."""
    body = child(context, "v1", "ConfigMap") | {"data": telemetry(context)}
    if claim := context.settings.installation.annotations:
        body["metadata"]["annotations"] = claim
    return body


def telemetry(context: Context) -> dict[str, str]:
    """Return the variables that configure logs and spans of the replicas."""
    variables = {"AUTOGLM_LOG_FORMAT": "json"}
    if endpoint := tracing_endpoint(context):
        ratio = context.spec.observability.tracing.sample_ratio
        variables["AUTOGLM_TRACES"] = f"otlp:{endpoint}"
        variables["AUTOGLM_TRACE_SAMPLE_RATIO"] = str(ratio)
    return variables


def tracing_endpoint(context: Context) -> str:
    """Return the endpoint of the resource, else of the installation; empty for none."""
    return context.spec.observability.tracing.endpoint or context.settings.tracing_endpoint


def account_name(resource: str) -> str:
    """Return the account's name: at most 62 characters, since a resource's name has at most 52."""
    return f"{resource}-inference"


def account_annotations(context: Context) -> dict[str, str]:
    """Return the annotations of the ServiceAccount: the resource's over the installation's."""
    own = context.spec.service_account.annotations
    return {**context.settings.models.service_account_annotations, **own}


def service_account(context: Context) -> Body:
    body = child(context, "v1", SERVICE_ACCOUNT, account_name(context.name))
    if annotations := account_annotations(context):
        body["metadata"]["annotations"] = annotations
    return body | {"automountServiceAccountToken": False}


def cluster_service(context: Context) -> Body:
    """Return the Service for clients inside the cluster that use no gateway."""
    spec = {
        "type": "ClusterIP",
        "selector": selector(context.name),
        "ports": [_port("grpc", GRPC_PORT), _port("http", HTTP_PORT)],
    }
    return child(context, "v1", "Service") | {"spec": spec}


def headless_service(context: Context) -> Body:
    """Return the headless Service, for gateways, which route to pods, and for monitoring."""
    spec = {
        "clusterIP": "None",
        "selector": selector(context.name),
        "ports": [
            _port("grpc", GRPC_PORT),
            _port("http", HTTP_PORT),
            _port("metrics", METRICS_PORT),
        ],
    }
    return child(context, "v1", "Service", pods_service(context.name)) | {"spec": spec}


def _port(name: str, number: int) -> Body:
    # With the protocol, which is part of a port's key in server-side apply.
    port = {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
    return port | ({"appProtocol": "kubernetes.io/h2c"} if name == "grpc" else {})


def disruption_budget(context: Context) -> Body:
    least = context.spec.disruption.min_available
    limit = {"maxUnavailable": 1} if least is None else {"minAvailable": least}
    spec = {
        **limit,
        "selector": {"matchLabels": selector(context.name)},
        # A replica that is not ready does not serve and must not block a drain.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child(context, "policy/v1", "PodDisruptionBudget") | {"spec": spec}


def pod_monitor(context: Context) -> Body:
    """Return the PodMonitor, which selects the replicas' metrics for the Prometheus operator."""
    spec = {
        "selector": {"matchLabels": selector(context.name)},
        "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics"}],
    }
    return child(context, "monitoring.coreos.com/v1", POD_MONITOR) | {"spec": spec}
