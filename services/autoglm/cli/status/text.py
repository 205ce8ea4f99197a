"""The screen of `autoglm status`: a table of all, then what is wrong and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from autoglm.api.status import ConditionType, Phase
from autoglm.cli.screen import Canvas, age, drawn, heading, sentence, table
from autoglm.cli.status.replicas import Replica, Warned
from autoglm.cli.status.view import Failure, Scaler, Statement, View

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
    views: Sequence[View], unseen: Sequence[tuple[str, str]], canvas: Canvas, *, is_full: bool
) -> str:
    """`is_full` shows everything about every resource, and not of those only that are not well."""
    parts: list[RenderableType] = [table(_COLUMNS, map(_row, views))]
    for view in views:
        if is_full or not view.is_well:
            parts += ["", *_details(view)]
    if unseen:
        parts += ["", heading("Not to be seen")]
        parts += [sentence(f"{what}: {why}") for what, why in unseen]
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
    if view.is_well:
        yield heading(f"{subject} is well", "green")
    else:
        yield heading(f"{subject} is not as it should be", "red")
    yield from map(sentence, _stated(view.statements))
    if view.failure:
        yield from _failure(view.failure)
    if view.advice:
        yield heading("What to do")
        yield from (sentence(line) for line in view.advice)
    if view.replicas:
        yield heading("Pods")
        yield _pods(view.replicas)
        told = view.failure.pod if view.failure else ""
        others = (r for r in view.replicas if r.why and r.name != told)
        yield from (sentence(f"{r.name}: {r.why}", 4) for r in others)
    if view.scaler:
        yield heading("Autoscaler")
        yield from _scaler(view.scaler, is_told=_is_told(view.statements))
    if view.warnings:
        yield heading("Warnings of the last hour")
        yield _warnings(view.warnings)


def _stated(statements: Sequence[Statement]) -> Iterator[str]:
    """What several conditions say in the same words is said once."""
    held: dict[tuple[str, str], list[str]] = {}
    for each in statements:
        held.setdefault((each.reason, each.message), []).append(f"{each.type} is {each.status}")
    for (reason, message), conditions in held.items():
        why = f": {message}" if message else ""
        yield f"{', '.join(conditions)} ({reason}){why}"


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


def _is_told(statements: Sequence[Statement]) -> bool:
    return any(each.type == ConditionType.SCALING_ACTIVE for each in statements)


def _scaler(scaler: Scaler, *, is_told: bool) -> Iterator[RenderableType]:
    bounds = f"{scaler.least} to {scaler.most} replicas"
    metrics = f"; {', '.join(scaler.metrics)}" if scaler.metrics else ""
    yield sentence(f"{bounds}, {scaler.current} now, {scaler.desired} wanted{metrics}")
    if scaler.problem and not is_told:
        yield sentence(scaler.problem, style="red")


def _warnings(warnings: Sequence[Warned]) -> RenderableType:
    header = ("AGE", "TIMES", "OBJECT", "REASON", "MESSAGE")
    rows = ((age(w.age), str(w.times), w.about, w.reason, w.message) for w in warnings)
    return table(header, rows, indent=2)
