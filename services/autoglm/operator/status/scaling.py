"""Reports whether the number of replicas follows the load. Pure.

Reads the conditions of the HorizontalPodAutoscaler or of KEDA's ScaledObject.
"""

from __future__ import annotations

from typing import Any, Final

from autoglm.api.spec.operations import Scaling
from autoglm.operator.children.autoscaler import SCALED_OBJECT
from autoglm.operator.status.pods import condition
from autoglm.operator.status.resource_state import Condition, ResourceState
from autoglm.operator.types import Raw

_KINDS: Final = {"hpa": "HorizontalPodAutoscaler", "keda": SCALED_OBJECT}
# Conditions of each that must not be False; the last one is set once it has begun to work.
_REQUIRED: Final = {"hpa": ("AbleToScale", "ScalingActive"), "keda": ("Ready",)}
_NO_REQUEST = "missing request for "
_ADVICE: Final = {
    "FailedGetResourceMetric": "check that metrics-server runs (`kubectl top pods`)",
    "FailedGetPodsMetric": (
        "install an adapter for custom metrics with the rules of docs/scaling.md, or set "
        "spec.scaling.actuator: keda"
    ),
    "TriggerError": "check that Prometheus responds at the address of the operator's settings",
}


def scaling_active(state: ResourceState) -> Condition:
    """Return the condition ScalingActive."""
    scaling = state.context.spec.scaling
    if scaling is None:
        return Condition(False, "Fixed", "spec.scaling is not set; spec.replicas applies")
    if state.context.spec.suspend:
        return Condition(False, "Suspended", "nothing scales while spec.suspend is true")
    if scaling.actuator == "keda" and SCALED_OBJECT not in state.observed.optional_kinds:
        if why := state.observed.unavailable_kinds.get(SCALED_OBJECT):
            return Condition(False, "KedaUnavailable", unavailable(SCALED_OBJECT, why))
        message = "spec.scaling.actuator is keda, which is not installed; install it or set hpa"
        return Condition(False, "KedaMissing", message)
    live = live_autoscaler(state, scaling)
    if live is None:
        return Condition(None, "Starting", "the autoscaler is about to be created")
    required = [condition(live, kind) for kind in _REQUIRED[scaling.actuator]]
    if failed := next((c for c in required if c.get("status") == "False"), None):
        reason, message = failed.get("reason", "Unknown"), failed.get("message", "")
        advice = _ADVICE.get(reason, "`kubectl describe` of the autoscaler shows more")
        if _NO_REQUEST in message:
            resource = message.split(_NO_REQUEST, 1)[1].split()[0]
            reason, advice = "MissingRequest", f"set spec.resources.requests.{resource}"
        return Condition(False, reason, f"{message.rstrip('.')}; {advice}")
    if not required[-1]:
        reporter = "the autoscaler" if scaling.actuator == "hpa" else "KEDA"
        return Condition(None, "Starting", f"{reporter} has not reported yet")
    limited = condition(live, "ScalingLimited")
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        message = "the load needs more than spec.scaling.maxReplicas; raise it if resources allow"
        return Condition(True, "AtMaximum", message)
    return Condition(True, "Active", "the number of replicas follows the load")


def unavailable(kind: str, why: str) -> str:
    """Return the message for a kind that cannot be listed, with the remedy."""
    return (
        f"{kind} is installed, and the API server cannot list it: {why}; its objects are not "
        f"changed meanwhile. Check `kubectl get {kind.lower()}s` and the operator's role"
    )


def scaling_status(state: ResourceState) -> dict[str, Any] | None:
    """Return status.scaling. Without the metrics, which change all the time and would cause a
    write each time."""
    scaling = state.context.spec.scaling
    if scaling is None:
        return None
    status: dict[str, Any] = {
        "actuator": scaling.actuator,
        "desired_replicas": state.desired,
    }
    live = live_autoscaler(state, scaling) or {}
    if last := live.get("status", {}).get("lastScaleTime"):
        status["last_scale_time"] = last
    return status


def live_autoscaler(state: ResourceState, scaling: Scaling) -> Raw | None:
    """Return the autoscaler as it exists in the cluster."""
    kind = _KINDS[scaling.actuator]
    return next((c for c in state.observed.children if c["kind"] == kind), None)
