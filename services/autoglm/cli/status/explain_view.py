"""The way of a resource from its spec to a client's URL, step by step. Pure: no I/O, no layout.

Decides which steps are done, which are broken, and where to look further. `explain` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autoglm.api import InvalidSpec, parse
from autoglm.api.labels import COMPONENT, DEPLOYMENT, GATEWAY, OPERATOR, pods_service
from autoglm.cli.kube import Look, Raw, is_ready
from autoglm.cli.status.replicas import Replica
from autoglm.cli.status.view import View, is_observed, scaler, views

State = Literal["ok", "wrong", "unknown"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that a step is about."""

    what: str
    state: State
    found: str
    command: str = ""
    """How to look further."""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    state: State
    found: str
    pieces: tuple[Piece, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    view: View
    steps: tuple[Step, ...]

    @property
    def broken(self) -> Step | None:
        """The first that is broken; what comes after it may only follow from that."""
        return next((step for step in self.steps if step.state == "wrong"), None)

    @property
    def is_well(self) -> bool:
        return self.view.is_well and self.broken is None


def explain(look: Look, now: float) -> Explanation:
    """Of the one resource that was looked at."""
    (view,), (resource,) = views(look, now), look.resources
    steps = (
        _spec(resource, view),
        _operator(resource, look, view),
        _children(resource, look, view),
        _pods(view),
        _endpoints(look, view),
        _gateways(look, view),
        _url(view),
    )
    return Explanation(view, steps)


def _spec(resource: Raw, view: View) -> Step:
    generation = resource["metadata"].get("generation", 0)
    edit = f"kubectl edit agd {view.name} -n {view.namespace}"
    try:
        engine = parse(resource).spec.engine.type
    except InvalidSpec as error:
        pieces = tuple(Piece(p.path or "document", "wrong", str(p)) for p in error.problems)
        return Step("Spec", "wrong", f"generation {generation} is invalid", pieces, edit)
    # The operator knows rules beyond the schema, such as what a pod template may hold.
    if said := next((s for s in view.statements if s.reason == "InvalidSpec"), None):
        pieces = (Piece("operator", "wrong", said.message),)
        return Step("Spec", "wrong", f"generation {generation} is invalid", pieces, edit)
    count = "1 replica" if view.desired == 1 else f"{view.desired} replicas"
    model = "" if view.model == engine else f"{view.model} on "
    return Step("Spec", "ok", f"generation {generation}: {model}{engine}, {count} wanted")


def _operator(resource: Raw, look: Look, view: View) -> Step:
    generation = resource["metadata"].get("generation", 0)
    if is_observed(resource):
        return Step("Operator", "ok", f"has acted on generation {generation}")
    seen = (resource.get("status") or {}).get("observedGeneration")
    told = f"has acted on generation {seen} only" if seen else "has never acted on it"
    selector = f"{COMPONENT}={OPERATOR}"
    if any(map(is_ready, look.operators)):
        metadata = next(pod for pod in look.operators if is_ready(pod))["metadata"]
        command = f"kubectl logs -n {metadata['namespace']} -l {selector}"
        return Step(
            "Operator", "wrong", f"runs, and {told}; does it watch this namespace?", (), command
        )
    found = f"{told}, and none is ready among the pods that may be seen"
    return Step("Operator", "wrong", found, (), f"kubectl get pods -A -l {selector}")


def _children(resource: Raw, look: Look, view: View) -> Step:
    mine = {
        (child["kind"], child["metadata"]["name"]): child
        for child in look.children
        if child["metadata"]["labels"].get(DEPLOYMENT) == view.name
    }
    unseen = {what.partition(" ")[0] for what, _ in look.unseen}
    expected = dict.fromkeys([*_expected(resource), *mine])
    pieces = tuple(_child(view, key, mine.get(key), unseen) for key in expected)
    good = sum(piece.state == "ok" for piece in pieces)
    state: State = "wrong" if any(piece.state == "wrong" for piece in pieces) else "ok"
    return Step("Children", state, f"{good} of {len(pieces)} are there and healthy", pieces)


def _expected(resource: Raw) -> Iterator[tuple[str, str]]:
    """What the operator says there is; before it has said anything, the least there will be."""
    name, status = resource["metadata"]["name"], resource.get("status") or {}
    for managed in status.get("managedResources") or ():
        yield managed["kind"], managed["name"]
    yield "Service", pods_service(name)


def _child(view: View, key: tuple[str, str], child: Raw | None, unseen: set[str]) -> Piece:
    kind, name = key
    what, command = f"{kind}/{name}", f"kubectl describe {kind.lower()} {name} -n {view.namespace}"
    if child is None:
        # Plurals of the kinds concerned end in s or ies.
        if {f"{kind.lower()}s", f"{kind.lower()[:-1]}ies"} & unseen:
            return Piece(what, "unknown", "may not be read", "")
        events = f"kubectl describe agd {view.name} -n {view.namespace}"
        return Piece(what, "wrong", "is missing; the operator makes it anew", events)
    state, found = _health(child)
    return Piece(what, state, found, command if state == "wrong" else "")


def _health(child: Raw) -> tuple[State, str]:
    status: Mapping[str, Any] = child.get("status") or {}
    match child["kind"]:
        case "Deployment":
            return _deployment_health(child["spec"], status)
        case "HorizontalPodAutoscaler":
            seen = scaler(child)
            if seen.problem:
                return "wrong", seen.problem
            return "ok", f"{seen.desired} wanted, {seen.current} there"
        case "PodDisruptionBudget":
            return "ok", f"{status.get('disruptionsAllowed', 0)} may be evicted now"
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "False":
            return "wrong", f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return "ok", "is there"


def _deployment_health(spec: Raw, status: Mapping[str, Any]) -> tuple[State, str]:
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas") or 0
    told = f"{ready} of {wanted} replicas ready"
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return "wrong", f"{told}; {condition.get('message', '')}"
    # Replicas that start or fail are what the next step is about.
    return ("ok" if ready >= wanted else "unknown"), told


def _pods(view: View) -> Step:
    ready = sum(replica.is_ready for replica in view.replicas)
    pieces = tuple(_pod(view, replica) for replica in view.replicas)
    found = f"{ready} of {view.desired} ready"
    if ready >= view.desired:
        return Step("Pods", "ok", found, pieces)
    command = "" if pieces else f"kubectl get events -n {view.namespace}"
    return Step("Pods", "wrong", found if pieces else f"{found}: there is none", pieces, command)


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
    # One that starts has nothing wrong with it.
    state: State = "wrong" if replica.why or replica.restarts or replica.remedy else "unknown"
    return Piece(what, state, f"{replica.state}{where}{why}", command)


def _endpoints(look: Look, view: View) -> Step:
    endpoints = [e for piece in look.slices for e in piece.get("endpoints") or ()]
    # Absent means ready.
    good = [e for e in endpoints if (e.get("conditions") or {}).get("ready") is not False]
    service = pods_service(view.name)
    found = f"{len(good)} of {len(endpoints)} addresses of Service/{service} are ready"
    if good or not view.desired:
        return Step("Endpoints", "ok", found)
    command = (
        f"kubectl get endpointslices -n {view.namespace} -l kubernetes.io/service-name={service}"
    )
    if any(what.startswith("endpointslices") for what, _ in look.unseen):
        return Step("Endpoints", "unknown", "EndpointSlices may not be read")
    return Step("Endpoints", "wrong", found, (), command)


def _gateways(look: Look, view: View) -> Step:
    ready = sum(map(is_ready, look.gateways))
    command = f"kubectl get pods -A -l {COMPONENT}={GATEWAY}"
    if look.routable is None:
        return _gateways_by_condition(look, view, ready, command)
    pods = [replica for replica in view.replicas if replica.is_ready]
    pieces = tuple(
        Piece(f"Pod/{pod.name}", "ok" if pod.is_routable else "wrong", _routed(pod)) for pod in pods
    )
    routable = sum(bool(pod.is_routable) for pod in pods)
    found = f"{ready} ready, and {routable} of {len(pods)} ready pods in the pools of all"
    is_good = routable == len(pods) and (routable or not view.desired)
    return Step("Gateways", "ok" if is_good else "wrong", found, pieces, "" if is_good else command)


def _routed(pod: Replica) -> str:
    return "takes requests" if pod.is_routable else "is ready, but not in the pool of every gateway"


def _gateways_by_condition(look: Look, view: View, ready: int, command: str) -> Step:
    """Nobody could be asked: then what the operator has heard."""
    is_unseen = any(what.startswith("pods in all") for what, _ in look.unseen)
    if not ready and not is_unseen:
        return Step("Gateways", "wrong", "none is ready; nobody reaches the model", (), command)
    said = next((s for s in view.statements if s.type == "Routable"), None)
    if said:
        return Step("Gateways", "wrong", f"{said.reason}: {said.message}", (), command)
    return Step("Gateways", "unknown", "may not be asked; the operator says nothing bad of them")


def _url(view: View) -> Step:
    if view.url:
        return Step("URL", "ok", view.url)
    found = "not known: the operator was installed without --gateway-url"
    return Step("URL", "unknown", found, (), f"kubectl get services -A -l {COMPONENT}={GATEWAY}")
