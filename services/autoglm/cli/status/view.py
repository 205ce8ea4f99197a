"""Derives the health, problems and remedies of resources for `autoglm status`. Pure.

`cluster` renders them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from autoglm.api import KIND
from autoglm.api.labels import COMPONENT, OPERATOR
from autoglm.api.status import ConditionType, Phase
from autoglm.cli.kube import ClusterState, Raw
from autoglm.cli.status.remedies import remedy
from autoglm.cli.status.replicas import (
    Replica,
    WarningEvent,
    replicas,
    seconds_since,
    warning_events,
)

# Expected status of each condition. Progressing may have any.
_WANTED: Final = {
    ConditionType.READY: "True",
    ConditionType.AVAILABLE: "True",
    ConditionType.DEGRADED: "False",
    ConditionType.MODEL_LOADED: "True",
    ConditionType.ROUTABLE: "True",
    ConditionType.SCALING_ACTIVE: "True",
    ConditionType.ROLLOUT_HEALTHY: "True",
}
# Phases of healthy resources without replicas.
_AT_REST = (Phase.SUSPENDED, Phase.IDLE)


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """A condition without its expected status."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """status.model.lastFailure with its remedy."""

    reason: str
    message: str
    exit_code: int | None
    pod: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """State of a HorizontalPodAutoscaler."""

    min_replicas: int
    max_replicas: int
    current: int
    desired: int
    metrics: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A resource with its problems and remedies."""

    namespace: str
    name: str
    phase: str
    is_healthy: bool
    desired: int
    ready: int
    routable: int | None
    revision: str
    model: str
    url: str
    age: float | None
    conditions: tuple[FailedCondition, ...] = ()
    failure: Failure | None = None
    replicas: tuple[Replica, ...] = ()
    autoscaler: Autoscaler | None = None
    warnings: tuple[WarningEvent, ...] = ()
    advice: tuple[str, ...] = ()


def views(observed: ClusterState, now: float) -> tuple[View, ...]:
    """Return a view of each resource, sorted by namespace and name."""
    found = [_view(resource, observed, now) for resource in observed.resources]
    return tuple(sorted(found, key=lambda view: (view.namespace, view.name)))


def is_observed(resource: Raw) -> bool:
    """Return whether the status describes the current spec."""
    observed = (resource.get("status") or {}).get("observedGeneration", 0)
    return bool(observed >= resource["metadata"].get("generation", 0))


def failed_conditions(resource: Raw) -> Iterator[FailedCondition]:
    """Yield the conditions without their expected status."""
    status = resource.get("status") or {}
    # Without replicas, only Degraded counts.
    expected = {ConditionType.DEGRADED: "False"} if status.get("phase") in _AT_REST else _WANTED
    last = (status.get("model") or {}).get("lastFailure") or {}
    for condition in status.get("conditions") or ():
        kind, actual = condition["type"], condition["status"]
        if kind == ConditionType.SCALING_ACTIVE and not resource["spec"].get("scaling"):
            continue
        if actual != expected.get(kind, actual):
            message, failure = condition.get("message", ""), last.get("message", "")
            if failure:  # which is shown once, with the last failure
                message = message.removesuffix(failure).rstrip(": ")
            yield FailedCondition(kind, actual, condition.get("reason", ""), message)


def _view(resource: Raw, observed: ClusterState, now: float) -> View:
    metadata, spec = resource["metadata"], resource["spec"]
    status: Mapping[str, Any] = resource.get("status") or {}
    conditions = tuple(failed_conditions(resource))
    failure = None
    if last := (status.get("model") or {}).get("lastFailure"):
        reason, code = last.get("reason", ""), last.get("exitCode")
        message, pod = last.get("message", ""), last.get("pod", "")
        failure = Failure(reason, message, code, pod, remedy(reason, code, message))
    # The operator's events that repeat a condition are left out.
    shown = {condition.reason for condition in conditions}
    warnings = tuple(
        w
        for w in warning_events(resource, observed, now)
        if not (w.object.startswith(KIND) and w.reason in shown)
    )
    pods = replicas(resource, observed, now)
    # KEDA creates one for a ScaledObject.
    scalers = (metadata["name"], f"keda-hpa-{metadata['name']}")
    hpas = (each for each in observed.children if each["kind"] == "HorizontalPodAutoscaler")
    hpa = next(
        (
            each
            for each in hpas
            if each["metadata"]["namespace"] == metadata["namespace"]
            and each["metadata"]["name"] in scalers
        ),
        None,
    )
    is_current = is_observed(resource)
    revisions = status.get("revisions") or ()
    has_ready_condition = any(c["type"] == "Ready" for c in status.get("conditions") or ())
    view = View(
        namespace=metadata["namespace"],
        name=metadata["name"],
        phase=status.get("phase") or "Unknown",
        is_healthy=is_current and has_ready_condition and not conditions,
        desired=desired(spec),
        ready=status.get("readyReplicas") or 0,
        routable=_routable(pods, status),
        revision=revisions[0]["hash"] if revisions else "",
        model=spec["model"].get("uri") or spec.get("engine", {}).get("type", "vllm"),
        url=status.get("url") or "",
        age=seconds_since(metadata.get("creationTimestamp"), now),
        conditions=conditions,
        failure=failure,
        replicas=pods,
        autoscaler=autoscaler(hpa) if hpa else None,
        warnings=warnings,
    )
    if view.is_healthy:
        return view
    advice = dict.fromkeys(line for line in _advice(view, is_current) if line)
    return replace(view, advice=tuple(advice))


def desired(spec: Raw) -> int:
    """Return the desired replicas as the operator computes them; the spec may be invalid."""
    if spec.get("suspend"):
        return 0
    count, scaling = int(spec.get("replicas", 1)), spec.get("scaling")
    if not scaling:
        return count
    return int(max(scaling.get("minReplicas", 1), min(count, scaling.get("maxReplicas", count))))


def _routable(pods: Sequence[Replica], status: Mapping[str, Any]) -> int | None:
    known = [pod.is_routable for pod in pods if pod.is_routable is not None]
    if pods and len(known) == len(pods):
        return sum(known)
    # By the operator's condition all gateways have all ready pods.
    actual = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    is_routable = actual.get(ConditionType.ROUTABLE) == "True"
    return status.get("readyReplicas") if is_routable else None


def autoscaler(child: Raw) -> Autoscaler:
    """Return the state of a HorizontalPodAutoscaler."""
    spec, status = child["spec"], child.get("status") or {}
    metrics = status.get("currentMetrics") or ()
    current = {_metric_name(metric): _value(metric, "current") for metric in metrics}
    problems = [
        f"{condition.get('reason', condition['type'])}: {condition.get('message', '')}"
        for condition in status.get("conditions") or ()
        if condition["type"] in ("AbleToScale", "ScalingActive") and condition["status"] == "False"
    ]
    return Autoscaler(
        min_replicas=spec.get("minReplicas", 1),
        max_replicas=spec["maxReplicas"],
        current=status.get("currentReplicas") or 0,
        desired=status.get("desiredReplicas") or 0,
        metrics=tuple(
            f"{_metric_name(metric)} {current.get(_metric_name(metric), '?')} of "
            f"{_value(metric, 'target')}"
            for metric in spec.get("metrics") or ()
        ),
        problem="; ".join(problems),
    )


def _metric_name(metric: Raw) -> str:
    source = _source(metric)
    return str(source.get("name") or (source.get("metric") or {}).get("name", "?"))


def _value(metric: Raw, which: str) -> str:
    value = _source(metric).get(which) or {}
    share = value.get("averageUtilization")
    return f"{share}%" if share is not None else str(value.get("averageValue", "?"))


def _source(metric: Raw) -> Mapping[str, Any]:
    """Return the source of a metric, whose key is its type: `resource`, `pods`, `external` ..."""
    kind = str(metric.get("type", ""))
    return metric.get(kind[:1].lower() + kind[1:]) or {}


def _advice(view: View, is_current: bool) -> Iterator[str]:
    """Yield remedies, those for causes before those for symptoms."""
    here = f"-n {view.namespace}"
    if not is_current:
        yield (
            "the operator has not reconciled the current spec; check that it runs: "
            f"kubectl get pods -A -l {COMPONENT}={OPERATOR}"
        )
    if view.failure:
        yield view.failure.remedy
    yield from (remedy(c.reason, message=c.message) for c in view.conditions)
    yield from (pod.remedy for pod in view.replicas)
    # A container that never ran has no log.
    failure = view.failure
    ended = failure.pod if failure and failure.exit_code is not None else ""
    for pod in view.replicas:
        if pod.name == ended or (pod.restarts and not pod.is_ready):
            previous = " --previous" if pod.restarts else ""
            yield f"kubectl logs {pod.name} {here} -c engine{previous}"
            break
    yield f"kubectl autoglm explain {view.name} {here}"
