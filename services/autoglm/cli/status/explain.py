"""`autoglm explain NAME`: the steps of a deployment from spec to URL, and the first failed one.

`explain` decides, without I/O or layout, which steps succeeded, which failed, and which commands
show details; `explain_text` renders it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import click
from rich.console import RenderableType
from rich.text import Text

from autoglm.api import InvalidSpec, parse
from autoglm.api.labels import COMPONENT, DEPLOYMENT, GATEWAY, OPERATOR, pods_service
from autoglm.cli.kube import ClusterState, Raw, is_ready, read_state
from autoglm.cli.options import NOT_HEALTHY, Where, cluster_options, document_option, examples
from autoglm.cli.output import document, terminal_columns
from autoglm.cli.screen import STYLES, Canvas, canvas_of_terminal, drawn, heading, sentence
from autoglm.cli.status.fields import explain_field, is_path
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


@click.command(
    epilog=examples(
        "autoglm explain chat",
        "autoglm explain chat -n models --output json",
        "autoglm explain agd.spec.model.cache",
    )
)
@click.argument("name")
@cluster_options
@document_option
def command(where: Where, name: str, output: str) -> int:
    """Check each step of an AutoGLMDeployment, from its spec to its URL.

    A path of fields, such as agd.spec.model.cache, is described without a cluster, as kubectl
    explain does. Exits with 3 if a step failed.
    """
    if is_path(name):
        try:
            click.echo(explain_field(name, terminal_columns()), nl=False)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="NAME") from error
        return 0
    if where.is_everywhere:
        raise click.UsageError(f"-A and the name {name} exclude each other; use -n NAMESPACE")
    cluster = where.open()
    explanation = explain(
        read_state(cluster, where.namespace_in(cluster), name, deep=True), time.time()
    )
    if output == "text":
        page = explain_text(explanation, canvas_of_terminal())
    else:
        page = document({"ready": explanation.is_healthy, **asdict(explanation)}, output)
    click.echo(page, nl=False)
    return 0 if explanation.is_healthy else NOT_HEALTHY


def explain_text(explanation: Explanation, canvas: Canvas) -> str:
    """Render the steps, the first failed one, and remedies."""
    view, failed_step = explanation.view, explanation.failed_step
    parts: list[RenderableType] = [heading(f"{view.namespace}/{view.name}: {view.phase}"), ""]
    for number, step in enumerate(explanation.steps, 1):
        state = Text(f"{step.state:7}", style=STYLES[step.state])
        name = (f"{step.name:10}", "bold")
        parts.append(Text.assemble(f"{number} ", name, state, f"  {step.found}"))
        for piece in step.pieces:
            style = "" if piece.state == "ok" else STYLES[piece.state]
            parts.append(sentence(f"{piece.state:7}  {piece.what}: {piece.found}", 4, style))
            if piece.command:
                parts.append(sentence(f"details: {piece.command}", 13, "dim"))
        if step.command:
            parts.append(sentence(f"details: {step.command}", 6, "dim"))
    if failed_step:
        text = f"First failed step: {failed_step.name}: {failed_step.found}"
        parts += ["", heading(text, "red")]
    if view.advice:
        parts += ["", heading("What to do")]
        parts += [sentence(line) for line in view.advice if "explain" not in line]
    return drawn(parts, canvas)


def explain(observed: ClusterState, now: float) -> Explanation:
    """Evaluate the steps of the only resource in the observed state."""
    (view,), (resource,) = views(observed, now), observed.resources
    url = Step("URL", "ok", view.url)
    if not view.url:
        found = "unknown; the operator runs without --gateway-url"
        command = f"kubectl get services -A -l {COMPONENT}={GATEWAY}"
        url = Step("URL", "unknown", found, (), command)
    steps = (
        _spec(resource, view),
        _operator(resource, observed, view),
        _children(resource, observed, view),
        _pods(view),
        _endpoints(observed, view),
        _gateways(observed, view),
        url,
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
    last = (resource.get("status") or {}).get("observedGeneration")
    reconciled = f"reconciled generation {last} only" if last else "has not reconciled it"
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
    # The children in the status, and the Service that each resource has.
    managed = (resource.get("status") or {}).get("managedResources") or ()
    expected = dict.fromkeys((each["kind"], each["name"]) for each in managed)
    expected |= dict.fromkeys([("Service", pods_service(view.name)), *mine])
    pieces: list[Piece] = []
    for kind, name in expected:
        what, here = f"{kind}/{name}", f"-n {view.namespace}"
        if child := mine.get((kind, name)):
            health, found = _health(child)
            command = f"kubectl describe {kind.lower()} {name} {here}" if health == "failed" else ""
            pieces.append(Piece(what, health, found, command))
        # Plurals of these kinds end in s or ies.
        elif {f"{kind.lower()}s", f"{kind.lower()[:-1]}ies"} & not_accessible:
            pieces.append(Piece(what, "unknown", "forbidden to read it"))
        else:
            events = f"kubectl describe agd {view.name} {here}"
            found = "missing; the operator creates it again"
            pieces.append(Piece(what, "failed", found, events))
    good = sum(piece.state == "ok" for piece in pieces)
    state: State = "failed" if any(piece.state == "failed" for piece in pieces) else "ok"
    return Step("Children", state, f"{good} of {len(pieces)} are healthy", tuple(pieces))


def _health(child: Raw) -> tuple[State, str]:
    status: Mapping[str, Any] = child.get("status") or {}
    match child["kind"]:
        case "Deployment":
            wanted, ready = child["spec"].get("replicas", 1), status.get("readyReplicas") or 0
            found = f"{ready} of {wanted} replicas ready"
            for condition in status.get("conditions") or ():
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    return "failed", f"{found}; {condition.get('message', '')}"
            # The next step checks replicas that start or fail.
            return ("ok" if ready >= wanted else "unknown"), found
        case "HorizontalPodAutoscaler":
            hpa = autoscaler(child)
            if hpa.problem:
                return "failed", hpa.problem
            return "ok", f"{hpa.desired} desired, {hpa.current} present"
        case "PodDisruptionBudget":
            return "ok", f"{status.get('disruptionsAllowed', 0)} may be evicted now"
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "False":
            return "failed", f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return "ok", "present"


def _pods(view: View) -> Step:
    found_pieces: list[Piece] = []
    for replica in view.replicas:
        what = f"Pod/{replica.name}"
        where = f" on {replica.node}" if replica.node else ""
        if replica.is_ready:
            found_pieces.append(Piece(what, "ok", f"ready{where}"))
            continue
        verb = (
            f"logs {replica.name} -c engine --previous"
            if replica.restarts
            else f"describe pod {replica.name}"
        )
        why = f": {replica.why}" if replica.why else ""
        command = f"kubectl {verb} -n {view.namespace}"
        # A pod that is starting has not failed.
        has_failed = replica.why or replica.restarts or replica.remedy
        state: State = "failed" if has_failed else "unknown"
        found_pieces.append(Piece(what, state, f"{replica.state}{where}{why}", command))
    pieces = tuple(found_pieces)
    ready = sum(replica.is_ready for replica in view.replicas)
    found = f"{ready} of {view.desired} ready"
    if ready >= view.desired:
        return Step("Pods", "ok", found, pieces)
    command = "" if pieces else f"kubectl get events -n {view.namespace}"
    return Step("Pods", "failed", found if pieces else f"{found}, none exists", pieces, command)


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
        # No gateway responded: the operator's condition decides.
        is_forbidden = any(what.startswith("pods in all") for what, _ in observed.not_accessible)
        if not ready and not is_forbidden:
            found = "none is ready; the model is not available to clients"
            return Step("Gateways", "failed", found, (), command)
        if condition := next((s for s in view.conditions if s.type == "Routable"), None):
            found = f"{condition.reason}: {condition.message}"
            return Step("Gateways", "failed", found, (), command)
        found = "not accessible; the operator reports no problem with them"
        return Step("Gateways", "unknown", found)
    pods = [replica for replica in view.replicas if replica.is_ready]
    pieces = tuple(
        Piece(f"Pod/{pod.name}", "ok", "receives requests")
        if pod.is_routable
        else Piece(f"Pod/{pod.name}", "failed", "ready, but not in the pools of all gateways")
        for pod in pods
    )
    routable = sum(bool(pod.is_routable) for pod in pods)
    found = f"{ready} ready, and {routable} of {len(pods)} ready pods in the pools of all gateways"
    is_good = routable == len(pods) and (routable or not view.desired)
    return Step(
        "Gateways", "ok" if is_good else "failed", found, pieces, "" if is_good else command
    )
