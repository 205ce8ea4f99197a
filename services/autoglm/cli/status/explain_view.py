"""Evaluates the steps of a resource from its spec to the URL for clients. Pure: no I/O, no layout.

Decides which steps succeeded, which failed, and which commands show details. `explain` renders it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autoglm.api import InvalidSpec, parse
from autoglm.api.labels import COMPONENT, DEPLOYMENT, GATEWAY, OPERATOR, pods_service
from autoglm.cli.kube import ClusterState, Raw, is_ready
from autoglm.cli.status.replicas import Replica
from autoglm.cli.status.view import View, autoscaler, is_observed, views

State = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Piece:
    """An object that a step checks."""

    what: str
    state: State
    found: str
    command: str = ""
    """A command that shows details."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step with its state and the objects that it checks."""

    name: str
    state: State
    found: str
    pieces: tuple[Piece, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The status of a resource and its steps in order."""

    view: View
    steps: tuple[Step, ...]

    @property
    def failed_step(self) -> Step | None:
        """Return the first failed step; later failures may be its consequences."""
        return next((step for step in self.steps if step.state == "failed"), None)

    @property
    def is_healthy(self) -> bool:
        return self.view.is_healthy and self.failed_step is None


def explain(observed: ClusterState, now: float) -> Explanation:
    """Evaluate the steps of the only resource in the observed state."""
    (view,), (resource,) = views(observed, now), observed.resources
    steps = (
        _spec(resource, view),
        _operator(resource, observed, view),
        _children(resource, observed, view),
        _pods(view),
        _endpoints(observed, view),
        _gateways(observed, view),
        _url(view),
    )
    return Explanation(view, steps)


def _spec(resource: Raw, view: View) -> Step:
    generation = resource["metadata"].get("generation", 0)
    edit = f"kubectl edit agd {view.name} -n {view.namespace}"
    try:
        engine = parse(resource).spec.engine.type
    except InvalidSpec as error:
        pieces = tuple(Piece(p.path or "document", "failed", str(p)) for p in error.problems)
        return Step("Spec", "failed", f"generation {generation} is invalid", pieces, edit)
    # The operator checks more than the schema, such as the pod template.
    if invalid := next((s for s in view.conditions if s.reason == "InvalidSpec"), None):
        pieces = (Piece("operator", "failed", invalid.message),)
        return Step("Spec", "failed", f"generation {generation} is invalid", pieces, edit)
    count = "1 replica" if view.desired == 1 else f"{view.desired} replicas"
    model = "" if view.model == engine else f"{view.model} on "
    return Step("Spec", "ok", f"generation {generation}: {model}{engine}, {count} desired")


def _operator(resource: Raw, observed: ClusterState, view: View) -> Step:
    generation = resource["metadata"].get("generation", 0)
    if is_observed(resource):
        return Step("Operator", "ok", f"reconciled generation {generation}")
    seen = (resource.get("status") or {}).get("observedGeneration")
    reconciled = f"reconciled generation {seen} only" if seen else "has not reconciled it"
    selector = f"{COMPONENT}={OPERATOR}"
    if any(map(is_ready, observed.operators)):
        metadata = next(pod for pod in observed.operators if is_ready(pod))["metadata"]
        command = f"kubectl logs -n {metadata['namespace']} -l {selector}"
        found = f"ready, but {reconciled}; check that it watches this namespace"
        return Step("Operator", "failed", found, (), command)
    found = f"{reconciled}; no accessible pod of it is ready"
    return Step("Operator", "failed", found, (), f"kubectl get pods -A -l {selector}")


def _children(resource: Raw, observed: ClusterState, view: View) -> Step:
    mine = {
        (child["kind"], child["metadata"]["name"]): child
        for child in observed.children
        if child["metadata"]["labels"].get(DEPLOYMENT) == view.name
    }
    not_accessible = {what.partition(" ")[0] for what, _ in observed.not_accessible}
    expected = dict.fromkeys([*_expected(resource), *mine])
    pieces = tuple(_child(view, key, mine.get(key), not_accessible) for key in expected)
    good = sum(piece.state == "ok" for piece in pieces)
    state: State = "failed" if any(piece.state == "failed" for piece in pieces) else "ok"
    return Step("Children", state, f"{good} of {len(pieces)} are healthy", pieces)


def _expected(resource: Raw) -> Iterator[tuple[str, str]]:
    """Yield the children in the status, and the Service that each resource has."""
    name, status = resource["metadata"]["name"], resource.get("status") or {}
    for managed in status.get("managedResources") or ():
        yield managed["kind"], managed["name"]
    yield "Service", pods_service(name)


def _child(view: View, key: tuple[str, str], child: Raw | None, not_accessible: set[str]) -> Piece:
    kind, name = key
    what, command = f"{kind}/{name}", f"kubectl describe {kind.lower()} {name} -n {view.namespace}"
    if child is None:
        # Plurals of these kinds end in s or ies.
        if {f"{kind.lower()}s", f"{kind.lower()[:-1]}ies"} & not_accessible:
            return Piece(what, "unknown", "forbidden to read it", "")
        events = f"kubectl describe agd {view.name} -n {view.namespace}"
        return Piece(what, "failed", "missing; the operator creates it again", events)
    state, found = _health(child)
    return Piece(what, state, found, command if state == "failed" else "")


def _health(child: Raw) -> tuple[State, str]:
    status: Mapping[str, Any] = child.get("status") or {}
    match child["kind"]:
        case "Deployment":
            return _deployment_health(child["spec"], status)
        case "HorizontalPodAutoscaler":
            seen = autoscaler(child)
            if seen.problem:
                return "failed", seen.problem
            return "ok", f"{seen.desired} desired, {seen.current} present"
        case "PodDisruptionBudget":
            return "ok", f"{status.get('disruptionsAllowed', 0)} may be evicted now"
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "False":
            return "failed", f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return "ok", "present"


def _deployment_health(spec: Raw, status: Mapping[str, Any]) -> tuple[State, str]:
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas") or 0
    found = f"{ready} of {wanted} replicas ready"
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return "failed", f"{found}; {condition.get('message', '')}"
    # The next step checks replicas that start or fail.
    return ("ok" if ready >= wanted else "unknown"), found


def _pods(view: View) -> Step:
    ready = sum(replica.is_ready for replica in view.replicas)
    pieces = tuple(_pod(view, replica) for replica in view.replicas)
    found = f"{ready} of {view.desired} ready"
    if ready >= view.desired:
        return Step("Pods", "ok", found, pieces)
    command = "" if pieces else f"kubectl get events -n {view.namespace}"
    return Step("Pods", "failed", found if pieces else f"{found}, none exists", pieces, command)


def _pod(view: View, replica: Replica) -> Piece:
    what = f"Pod/{replica.name}"
    where = f" on {replica.node}" if replica.node else ""
    if replica.is_ready:
        return Piece(what, "ok", f"ready{where}")
    verb = (
        f"logs {replica.name} -c engine --previous"
        if replica.restarts
        else f"describe pod {replica.name}"
    )
    why = f": {replica.why}" if replica.why else ""
    command = f"kubectl {verb} -n {view.namespace}"
    # A pod that is starting has not failed.
    state: State = "failed" if replica.why or replica.restarts or replica.remedy else "unknown"
    return Piece(what, state, f"{replica.state}{where}{why}", command)


def _endpoints(observed: ClusterState, view: View) -> Step:
    endpoints = [e for piece in observed.slices for e in piece.get("endpoints") or ()]
    # An absent condition means ready.
    good = [e for e in endpoints if (e.get("conditions") or {}).get("ready") is not False]
    service = pods_service(view.name)
    found = f"{len(good)} of {len(endpoints)} addresses of Service/{service} are ready"
    if good or not view.desired:
        return Step("Endpoints", "ok", found)
    command = (
        f"kubectl get endpointslices -n {view.namespace} -l kubernetes.io/service-name={service}"
    )
    if any(what.startswith("endpointslices") for what, _ in observed.not_accessible):
        return Step("Endpoints", "unknown", "forbidden to list EndpointSlices")
    return Step("Endpoints", "failed", found, (), command)


def _gateways(observed: ClusterState, view: View) -> Step:
    ready = sum(map(is_ready, observed.gateways))
    command = f"kubectl get pods -A -l {COMPONENT}={GATEWAY}"
    if observed.routable is None:
        return _gateways_by_condition(observed, view, ready, command)
    pods = [replica for replica in view.replicas if replica.is_ready]
    pieces = tuple(
        Piece(f"Pod/{pod.name}", "ok" if pod.is_routable else "failed", _routed(pod))
        for pod in pods
    )
    routable = sum(bool(pod.is_routable) for pod in pods)
    found = f"{ready} ready, and {routable} of {len(pods)} ready pods in the pools of all gateways"
    is_good = routable == len(pods) and (routable or not view.desired)
    return Step(
        "Gateways", "ok" if is_good else "failed", found, pieces, "" if is_good else command
    )


def _routed(pod: Replica) -> str:
    return "receives requests" if pod.is_routable else "ready, but not in the pools of all gateways"


def _gateways_by_condition(observed: ClusterState, view: View, ready: int, command: str) -> Step:
    """Use the operator's condition if no gateway responded."""
    is_unseen = any(what.startswith("pods in all") for what, _ in observed.not_accessible)
    if not ready and not is_unseen:
        found = "none is ready; the model is not available to clients"
        return Step("Gateways", "failed", found, (), command)
    routable = next((s for s in view.conditions if s.type == "Routable"), None)
    if routable:
        return Step("Gateways", "failed", f"{routable.reason}: {routable.message}", (), command)
    return Step("Gateways", "unknown", "not accessible; the operator reports no problem with them")


def _url(view: View) -> Step:
    if view.url:
        return Step("URL", "ok", view.url)
    found = "unknown; the operator runs without --gateway-url"
    return Step("URL", "unknown", found, (), f"kubectl get services -A -l {COMPONENT}={GATEWAY}")
