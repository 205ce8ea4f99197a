"""What `autoglm status` says of resources on a cluster, as facts. Pure: no I/O, no layout.

Decides what counts as wrong and what is to be done. `status_text` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from autoglm.api import KIND
from autoglm.api.labels import COMPONENT, OPERATOR
from autoglm.api.status import ConditionType, Phase
from autoglm.cli.kube import Look, Raw
from autoglm.cli.status.remedies import remedy
from autoglm.cli.status.replicas import Replica, Warned, replicas, seconds_since, warned

# How each condition should be. Progressing may be either way.
_WANTED: Final = {
    ConditionType.READY: "True",
    ConditionType.AVAILABLE: "True",
    ConditionType.DEGRADED: "False",
    ConditionType.MODEL_LOADED: "True",
    ConditionType.ROUTABLE: "True",
    ConditionType.SCALING_ACTIVE: "True",
    ConditionType.ROLLOUT_HEALTHY: "True",
}
# Nothing runs, as it should be.
_AT_REST = (Phase.SUSPENDED, Phase.IDLE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A condition that is not as it should be."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What status.model.lastFailure says."""

    reason: str
    message: str
    exit_code: int | None
    pod: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Scaler:
    """A HorizontalPodAutoscaler, as it sees things."""

    least: int
    most: int
    current: int
    desired: int
    metrics: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One resource."""

    namespace: str
    name: str
    phase: str
    is_well: bool
    desired: int
    ready: int
    routable: int | None
    revision: str
    model: str
    url: str
    age: float | None
    statements: tuple[Statement, ...] = ()
    failure: Failure | None = None
    replicas: tuple[Replica, ...] = ()
    scaler: Scaler | None = None
    warnings: tuple[Warned, ...] = ()
    advice: tuple[str, ...] = ()


def views(look: Look, now: float) -> tuple[View, ...]:
    """Of all resources, by namespace and name."""
    found = [_view(resource, look, now) for resource in look.resources]
    return tuple(sorted(found, key=lambda view: (view.namespace, view.name)))


def is_observed(resource: Raw) -> bool:
    """Whether the status is about the spec as it is now."""
    seen = (resource.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= resource["metadata"].get("generation", 0))


def wrong(resource: Raw) -> Iterator[Statement]:
    """Conditions that are not as they should be."""
    status = resource.get("status") or {}
    # At rest, only what is said to be wrong counts.
    expected = {ConditionType.DEGRADED: "False"} if status.get("phase") in _AT_REST else _WANTED
    last = (status.get("model") or {}).get("lastFailure") or {}
    for condition in status.get("conditions") or ():
        kind, held = condition["type"], condition["status"]
        if kind == ConditionType.SCALING_ACTIVE and not resource["spec"].get("scaling"):
            continue
        if held != expected.get(kind, held):
            message = _without(condition.get("message", ""), last.get("message", ""))
            yield Statement(kind, held, condition.get("reason", ""), message)


def _without(message: str, said: str) -> str:
    """What is said of the failure anyway need not be said of every condition."""
    return message.removesuffix(said).rstrip(": ") if said else message


def _view(resource: Raw, look: Look, now: float) -> View:
    metadata, spec = resource["metadata"], resource["spec"]
    status: Mapping[str, Any] = resource.get("status") or {}
    statements, failure = tuple(wrong(resource)), _failure(status)
    pods = replicas(resource, look, now)
    is_seen = is_observed(resource)
    revisions = status.get("revisions") or ()
    has_said_ready = any(c["type"] == "Ready" for c in status.get("conditions") or ())
    view = View(
        namespace=metadata["namespace"],
        name=metadata["name"],
        phase=status.get("phase") or "Unknown",
        is_well=is_seen and has_said_ready and not statements,
        desired=desired(spec),
        ready=status.get("readyReplicas") or 0,
        routable=_routable(pods, status),
        revision=revisions[0]["hash"] if revisions else "",
        model=spec["model"].get("uri") or spec.get("engine", {}).get("type", "vllm"),
        url=status.get("url") or "",
        age=seconds_since(metadata.get("creationTimestamp"), now),
        statements=statements,
        failure=failure,
        replicas=pods,
        scaler=_scaler(resource, look),
        warnings=_unsaid(warned(resource, look, now), statements),
    )
    return _advised(view, is_seen)


def desired(spec: Raw) -> int:
    """As the operator reads it; the spec itself may be invalid."""
    if spec.get("suspend"):
        return 0
    count, scaling = int(spec.get("replicas", 1)), spec.get("scaling")
    if not scaling:
        return count
    return int(max(scaling.get("minReplicas", 1), min(count, scaling.get("maxReplicas", count))))


def _unsaid(warnings: Sequence[Warned], statements: Sequence[Statement]) -> tuple[Warned, ...]:
    """Without the operator's own, where a condition says the same."""
    said = {statement.reason for statement in statements}
    return tuple(w for w in warnings if not (w.about.startswith(KIND) and w.reason in said))


def _routable(pods: Sequence[Replica], status: Mapping[str, Any]) -> int | None:
    known = [pod.is_routable for pod in pods if pod.is_routable is not None]
    if pods and len(known) == len(pods):
        return sum(known)
    # What the operator has heard: that every gateway has every ready pod.
    held = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    is_told = held.get(ConditionType.ROUTABLE) == "True"
    return status.get("readyReplicas") if is_told else None


def _failure(status: Mapping[str, Any]) -> Failure | None:
    last = (status.get("model") or {}).get("lastFailure")
    if not last:
        return None
    code = last.get("exitCode")
    return Failure(
        last.get("reason", ""),
        last.get("message", ""),
        code,
        last.get("pod", ""),
        remedy(last.get("reason", ""), code),
    )


def _scaler(resource: Raw, look: Look) -> Scaler | None:
    metadata = resource["metadata"]
    # KEDA makes one of its own for a ScaledObject.
    names = (metadata["name"], f"keda-hpa-{metadata['name']}")
    for child in look.children:
        found = child["metadata"]
        is_mine = found["namespace"] == metadata["namespace"] and found["name"] in names
        if child["kind"] == "HorizontalPodAutoscaler" and is_mine:
            return scaler(child)
    return None


def scaler(child: Raw) -> Scaler:
    spec, status = child["spec"], child.get("status") or {}
    problems = [
        f"{condition.get('reason', condition['type'])}: {condition.get('message', '')}"
        for condition in status.get("conditions") or ()
        if condition["type"] in ("AbleToScale", "ScalingActive") and condition["status"] == "False"
    ]
    return Scaler(
        least=spec.get("minReplicas", 1),
        most=spec["maxReplicas"],
        current=status.get("currentReplicas") or 0,
        desired=status.get("desiredReplicas") or 0,
        metrics=tuple(_metrics(spec.get("metrics") or (), status.get("currentMetrics") or ())),
        problem="; ".join(problems),
    )


def _metrics(wanted: Sequence[Raw], current: Sequence[Raw]) -> Iterator[str]:
    now = {_metric_name(metric): _value(metric, "current") for metric in current}
    for metric in wanted:
        name = _metric_name(metric)
        yield f"{name} {now.get(name, '?')} of {_value(metric, 'target')}"


def _metric_name(metric: Raw) -> str:
    source = _source(metric)
    return str(source.get("name") or (source.get("metric") or {}).get("name", "?"))


def _value(metric: Raw, which: str) -> str:
    value = _source(metric).get(which) or {}
    share = value.get("averageUtilization")
    return f"{share}%" if share is not None else str(value.get("averageValue", "?"))


def _source(metric: Raw) -> Mapping[str, Any]:
    """`resource`, `pods` and the like hold what a metric of that type says."""
    kind = str(metric.get("type", ""))
    return metric.get(kind[:1].lower() + kind[1:]) or {}


def _advised(view: View, is_seen: bool) -> View:
    if view.is_well:
        return view
    unique = dict.fromkeys(line for line in _advice(view, is_seen) if line)
    return replace(view, advice=tuple(unique))


def _advice(view: View, is_seen: bool) -> Iterator[str]:
    """What to do, the cause before the symptoms."""
    here = f"-n {view.namespace}"
    if not is_seen:
        yield (
            "the operator has not acted on the present spec; see whether it runs: "
            f"kubectl get pods -A -l {COMPONENT}={OPERATOR}"
        )
    if view.failure:
        yield view.failure.remedy
    yield from (remedy(statement.reason) for statement in view.statements)
    yield from (pod.remedy for pod in view.replicas)
    # One that never ran has no log.
    failure = view.failure
    ended = failure.pod if failure and failure.exit_code is not None else ""
    for pod in view.replicas:
        if pod.name == ended or (pod.restarts and not pod.is_ready):
            previous = " --previous" if pod.restarts else ""
            yield f"kubectl logs {pod.name} {here} -c engine{previous}"
            break
    yield f"kubectl autoglm explain {view.name} {here}"
