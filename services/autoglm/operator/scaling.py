"""Whether the number of replicas follows the load, and why it may not. Pure.

Reads what the HorizontalPodAutoscaler or KEDA's ScaledObject says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autoglm.api.spec.scaling import Scaling
from autoglm.operator.children.autoscaler import SCALED_OBJECT
from autoglm.operator.observed import Raw
from autoglm.operator.status.pods import condition
from autoglm.operator.status.situation import Situation
from autoglm.operator.status.statement import Statement

_KINDS: Final = {"hpa": "HorizontalPodAutoscaler", "keda": SCALED_OBJECT}
_NO_REQUEST = "missing request for "
_ADVICE: Final = {
    "FailedGetResourceMetric": "check that metrics-server runs (`kubectl top pods`)",
    "FailedGetPodsMetric": (
        "install an adapter for custom metrics with the rules of docs/scaling.md, or set "
        "spec.scaling.actuator: keda"
    ),
    "TriggerError": "check that Prometheus answers where the operator's settings say it is",
}


def scaling_active(situation: Situation) -> Statement:
    scaling = situation.context.spec.scaling
    if scaling is None:
        return Statement(False, "Fixed", "spec.scaling is not set; spec.replicas is the number")
    if situation.context.spec.suspend:
        return Statement(False, "Suspended", "nothing scales while spec.suspend is true")
    if scaling.actuator == "keda" and SCALED_OBJECT not in situation.observed.optional_kinds:
        if why := situation.observed.unavailable_kinds.get(SCALED_OBJECT):
            return Statement(False, "KedaUnavailable", unavailable(SCALED_OBJECT, why))
        message = "spec.scaling.actuator is keda, which is not installed; install it or set hpa"
        return Statement(False, "KedaMissing", message)
    live = live_autoscaler(situation, scaling)
    if live is None:
        return Statement(None, "Starting", "the autoscaler is about to be created")
    return _of_hpa(live) if scaling.actuator == "hpa" else _of_scaled_object(live)


def unavailable(kind: str, why: str) -> str:
    """Say what a kind that cannot be listed means, and the way out."""
    return (
        f"{kind} is installed, and the API server cannot list it: {why}; nothing of it is changed "
        f"meanwhile. Check `kubectl get {kind.lower()}s` and the operator's role"
    )


def scaling_status(situation: Situation) -> dict[str, Any] | None:
    """Signals change all the time and stay with the autoscaler: at rest nothing is written."""
    scaling = situation.context.spec.scaling
    if scaling is None:
        return None
    status: dict[str, Any] = {
        "actuator": scaling.actuator,
        "desired_replicas": situation.desired,
    }
    live = live_autoscaler(situation, scaling) or {}
    if last := live.get("status", {}).get("lastScaleTime"):
        status["last_scale_time"] = last
    return status


def live_autoscaler(situation: Situation, scaling: Scaling) -> Raw | None:
    kind = _KINDS[scaling.actuator]
    return next((c for c in situation.observed.children if c["kind"] == kind), None)


def _of_hpa(live: Raw) -> Statement:
    for kind in ("AbleToScale", "ScalingActive"):
        said = condition(live, kind)
        if said.get("status") == "False":
            return _stuck(said)
    if not condition(live, "ScalingActive"):
        return Statement(None, "Starting", "the autoscaler has not looked yet")
    limited = condition(live, "ScalingLimited")
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        message = "the load asks for more than spec.scaling.maxReplicas; raise it if you can"
        return Statement(True, "AtMaximum", message)
    return Statement(True, "Active", "the number of replicas follows the load")


def _of_scaled_object(live: Raw) -> Statement:
    said = condition(live, "Ready")
    if said.get("status") == "False":
        return _stuck(said)
    if not said:
        return Statement(None, "Starting", "KEDA has not looked yet")
    return Statement(True, "Active", "the number of replicas follows the load")


def _stuck(said: Mapping[str, Any]) -> Statement:
    reason, message = said.get("reason", "Unknown"), said.get("message", "")
    advice = _ADVICE.get(reason, "`kubectl describe` of the autoscaler shows more")
    if _NO_REQUEST in message:
        resource = message.split(_NO_REQUEST, 1)[1].split()[0]
        reason, advice = "MissingRequest", f"set spec.resources.requests.{resource}"
    return Statement(False, reason, f"{message.rstrip('.')}; {advice}")
