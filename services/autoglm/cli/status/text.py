"""Renders `autoglm status`: a table of all resources, then problems and remedies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from autoglm.api.status import ConditionType, Phase
from autoglm.cli.screen import Canvas, age, drawn, heading, sentence, table
from autoglm.cli.status.replicas import Replica, WarningEvent
from autoglm.cli.status.view import Autoscaler, FailedCondition, Failure, View

_COLUMNS = (
    *("NAMESPACE", "NAME", "PHASE", "READY", "ROUTABLE", "REVISION", "MODEL", "AGE", "URL"),
)
_STYLES = {
    Phase.READY: "green",
    Phase.FAILED: "red",
    Phase.DEGRADED: "red",
    Phase.SUSPENDED: "dim",
    Phase.IDLE: "dim",
}


def status_text(
    views: Sequence[View],
    not_accessible: Sequence[tuple[str, str]],
    canvas: Canvas,
    *,
    is_full: bool,
) -> str:
    """Render the status; `is_full` shows the details of healthy resources as well."""
    parts: list[RenderableType] = [table(_COLUMNS, map(_row, views))]
    for view in views:
        if is_full or not view.is_healthy:
            parts += ["", *_details(view)]
    if not_accessible:
        parts += ["", heading("Not accessible")]
        parts += [sentence(f"{what}: {why}") for what, why in not_accessible]
    return drawn(parts, canvas)


def _row(view: View) -> list[str | Text]:
    return [
        view.namespace,
        view.name,
        Text(view.phase, style=_STYLES.get(Phase(view.phase), "yellow") if _is_phase(view) else ""),
        f"{view.ready}/{view.desired}",
        "?" if view.routable is None else f"{view.routable}/{view.desired}",
        view.revision or "-",
        view.model,
        age(view.age),
        view.url or "-",
    ]


def _is_phase(view: View) -> bool:
    return view.phase in set(Phase)


def _details(view: View) -> Iterator[RenderableType]:
    subject = f"{view.namespace}/{view.name}"
    if view.is_healthy:
        yield heading(f"{subject} is healthy", "green")
    else:
        yield heading(f"{subject} is not healthy", "red")
    yield from map(sentence, _stated(view.conditions))
    if view.failure:
        yield from _failure(view.failure)
    if view.advice:
        yield heading("What to do")
        yield from (sentence(line) for line in view.advice)
    if view.replicas:
        yield heading("Pods")
        yield _pods(view.replicas)
        shown = view.failure.pod if view.failure else ""
        others = (r for r in view.replicas if r.why and r.name != shown)
        yield from (sentence(f"{r.name}: {r.why}", 4) for r in others)
    if view.autoscaler:
        yield heading("Autoscaler")
        yield from _autoscaler(view.autoscaler, has_condition=_has_scaling(view.conditions))
    if view.warnings:
        yield heading("Warnings of the last hour")
        yield _warnings(view.warnings)


def _stated(conditions: Sequence[FailedCondition]) -> Iterator[str]:
    """Yield a line for each reason and message, with all conditions that have them."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for each in conditions:
        grouped.setdefault((each.reason, each.message), []).append(f"{each.type} is {each.status}")
    for (reason, message), group in grouped.items():
        why = f": {message}" if message else ""
        yield f"{', '.join(group)} ({reason}){why}"


def _failure(failure: Failure) -> Iterator[RenderableType]:
    code = "" if failure.exit_code is None else f", exit code {failure.exit_code}"
    pod = f", pod {failure.pod}" if failure.pod else ""
    yield sentence(f"Last failure: {failure.reason}{code}{pod}", style="red")
    if failure.message:
        yield sentence(failure.message, 4)


def _pods(replicas: Sequence[Replica]) -> RenderableType:
    header = ("NAME", "STATE", "READY", "ROUTABLE", "RESTARTS", "AGE", "NODE", "REVISION")
    rows = (
        (
            replica.name,
            replica.state,
            _yes(replica.is_ready),
            _yes(replica.is_routable),
            str(replica.restarts),
            age(replica.age),
            replica.node or "-",
            replica.revision or "-",
        )
        for replica in replicas
    )
    return table(header, rows, indent=2)


def _yes(fact: bool | None) -> str:
    return "?" if fact is None else "yes" if fact else "no"


def _has_scaling(conditions: Sequence[FailedCondition]) -> bool:
    return any(each.type == ConditionType.SCALING_ACTIVE for each in conditions)


def _autoscaler(autoscaler: Autoscaler, *, has_condition: bool) -> Iterator[RenderableType]:
    bounds = f"{autoscaler.min_replicas} to {autoscaler.max_replicas} replicas"
    metrics = f"; {', '.join(autoscaler.metrics)}" if autoscaler.metrics else ""
    yield sentence(f"{bounds}, {autoscaler.current} current, {autoscaler.desired} desired{metrics}")
    if autoscaler.problem and not has_condition:
        yield sentence(autoscaler.problem, style="red")


def _warnings(warnings: Sequence[WarningEvent]) -> RenderableType:
    header = ("AGE", "COUNT", "OBJECT", "REASON", "MESSAGE")
    rows = ((age(w.age), str(w.count), w.object, w.reason, w.message) for w in warnings)
    return table(header, rows, indent=2)
