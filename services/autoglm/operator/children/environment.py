"""ConfigMap: environment variables of pods that do not depend on the revision. Pure.

Settings of a revision (model, engine, limits) are in its pod template, so that an old replica that
restarts during a rollout does not change.
"""

from __future__ import annotations

from autoglm.operator.children.metadata import Body, Context, child


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
