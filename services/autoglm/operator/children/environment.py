"""ConfigMap: settings of a pod that are the same for every revision. Pure.

What belongs to a revision (model, engine, limits) is in its own pod template, so that an old
replica that restarts during a rollout comes back as it was.
"""

from __future__ import annotations

from autoglm.operator.children.metadata import Body, Context, child


def config_map(context: Context) -> Body:
    """The first child, which carries the claim of the installation."""
    body = child(context, "v1", "ConfigMap") | {"data": telemetry(context)}
    if claim := context.settings.installation.annotations:
        body["metadata"]["annotations"] = claim
    return body


def telemetry(context: Context) -> dict[str, str]:
    """Where logs and spans of the replicas go, as variables of the pod."""
    variables = {"AUTOGLM_LOG_FORMAT": "json"}
    if endpoint := tracing_endpoint(context):
        ratio = context.spec.observability.tracing.sample_ratio
        variables["AUTOGLM_TRACES"] = f"otlp:{endpoint}"
        variables["AUTOGLM_TRACE_SAMPLE_RATIO"] = str(ratio)
    return variables


def tracing_endpoint(context: Context) -> str:
    """The resource's own, or the installation's; empty where there is none."""
    return context.spec.observability.tracing.endpoint or context.settings.tracing_endpoint
