"""Status of the deployments on a cluster, for `autoglm status` and `kubectl autoglm status`.

The output is a table of all resources, then problems and remedies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import NoReturn

import click
from rich.console import RenderableType
from rich.text import Text

from autoglm.api.status import ConditionType, Phase
from autoglm.cli.cluster import ClusterError
from autoglm.cli.kube import ClusterState, read_state
from autoglm.cli.options import (
    NOT_HEALTHY,
    Where,
    cluster_options,
    document_option,
    examples,
    watch_option,
)
from autoglm.cli.output import document
from autoglm.cli.screen import (
    Canvas,
    Cell,
    age,
    canvas_of_terminal,
    drawn,
    heading,
    sentence,
    table,
)
from autoglm.cli.status.replicas import Replica
from autoglm.cli.status.view import View, views

_EVERY_SECONDS = 2.0
_COLUMNS = (
    *("NAMESPACE", "NAME", "PHASE", "READY", "ROUTABLE", "REVISION", "MODEL", "AGE", "URL"),
)
_POD_COLUMNS = ("NAME", "STATE", "READY", "ROUTABLE", "RESTARTS", "AGE", "NODE", "REVISION")
_STYLES = {
    Phase.READY: "green",
    Phase.FAILED: "red",
    Phase.DEGRADED: "red",
    Phase.SUSPENDED: "dim",
    Phase.IDLE: "dim",
}


@click.command(
    epilog=examples("kubectl autoglm status -A", "kubectl autoglm status chat -n models --watch")
)
@click.argument("name", default="")
@cluster_options
@watch_option
@document_option
def command(where: Where, name: str, watch: bool, output: str) -> int:
    """Show the status of deployments, with problems and remedies.

    Exits with 3 if a deployment is not healthy.
    """
    return show(where, name, output, is_watched=watch)


def show(where: Where, name: str, output: str, *, is_watched: bool) -> int:
    """Print the status; return NOT_HEALTHY if a deployment is not healthy."""
    if name and where.is_everywhere:
        raise click.UsageError(f"-A and the name {name} exclude each other; use -n NAMESPACE")
    cluster = where.open()
    namespace = where.namespace_in(cluster)

    def once() -> tuple[str, int]:
        return screen(read_state(cluster, namespace, name), name, output, time.time())

    if is_watched:
        watch(lambda: once()[0], time.sleep)
    page, code = once()
    click.echo(page, nl=False)
    return code


def screen(observed: ClusterState, name: str, output: str, now: float) -> tuple[str, int]:
    """Return the text to print and the exit code."""
    found = views(observed, now)
    code = 0 if all(view.is_healthy for view in found) else NOT_HEALTHY
    if output != "text":
        items = [asdict(view) for view in found]
        return document(
            {"ready": code == 0, "items": items, "not_accessible": observed.not_accessible}, output
        ), code
    if not found:
        return "No AutoGLMDeployment found; create one with `autoglm deploy -c FILE`.\n", code
    return status_text(
        found, observed.not_accessible, canvas_of_terminal(), is_full=bool(name)
    ), code


def watch(page: Callable[[], str], sleep: Callable[[float], None]) -> NoReturn:
    """Print the page on each change. Errors of the cluster are shown, and polling continues."""
    shown = ""
    while True:
        try:
            now = page()
        except ClusterError as error:
            now = f"{error.reason}: {error.message}\n"
        if now != shown:
            click.clear()  # only on a terminal
            click.echo(now, nl=False)
        shown = now
        sleep(_EVERY_SECONDS)


def status_text(
    views: Sequence[View],
    not_accessible: Sequence[tuple[str, str]],
    canvas: Canvas,
    *,
    is_full: bool,
) -> str:
    """Render the status; `is_full` shows the details of healthy resources as well."""
    phases = set(Phase)
    rows: list[list[Cell]] = [
        [
            view.namespace,
            view.name,
            Text(
                view.phase,
                style=_STYLES.get(Phase(view.phase), "yellow") if view.phase in phases else "",
            ),
            f"{view.ready}/{view.desired}",
            "?" if view.routable is None else f"{view.routable}/{view.desired}",
            view.revision or "-",
            view.model,
            age(view.age),
            view.url or "-",
        ]
        for view in views
    ]
    parts: list[RenderableType] = [table(_COLUMNS, rows)]
    for view in views:
        if is_full or not view.is_healthy:
            parts += ["", *_details(view)]
    if not_accessible:
        parts += ["", heading("Not accessible")]
        parts += [sentence(f"{what}: {why}") for what, why in not_accessible]
    return drawn(parts, canvas)


def _details(view: View) -> Iterator[RenderableType]:
    subject = f"{view.namespace}/{view.name}"
    if view.is_healthy:
        yield heading(f"{subject} is healthy", "green")
    else:
        yield heading(f"{subject} is not healthy", "red")
    # One line for each reason and message, with all conditions that have them.
    grouped: dict[tuple[str, str], list[str]] = {}
    for each in view.conditions:
        grouped.setdefault((each.reason, each.message), []).append(f"{each.type} is {each.status}")
    for (reason, message), group in grouped.items():
        yield sentence(f"{', '.join(group)} ({reason}){f': {message}' if message else ''}")
    if failure := view.failure:
        code = "" if failure.exit_code is None else f", exit code {failure.exit_code}"
        pod = f", pod {failure.pod}" if failure.pod else ""
        yield sentence(f"Last failure: {failure.reason}{code}{pod}", style="red")
        if failure.message:
            yield sentence(failure.message, 4)
    if view.advice:
        yield heading("What to do")
        yield from (sentence(line) for line in view.advice)
    if view.replicas:
        yield heading("Pods")
        yield table(_POD_COLUMNS, map(_pod_row, view.replicas), indent=2)
        shown = view.failure.pod if view.failure else ""
        others = (r for r in view.replicas if r.why and r.name != shown)
        yield from (sentence(f"{r.name}: {r.why}", 4) for r in others)
    if view.autoscaler:
        yield heading("Autoscaler")
        hpa = view.autoscaler
        metrics = f"; {', '.join(hpa.metrics)}" if hpa.metrics else ""
        bounds = f"{hpa.min_replicas} to {hpa.max_replicas} replicas"
        yield sentence(f"{bounds}, {hpa.current} current, {hpa.desired} desired{metrics}")
        has_condition = any(each.type == ConditionType.SCALING_ACTIVE for each in view.conditions)
        if hpa.problem and not has_condition:
            yield sentence(hpa.problem, style="red")
    if view.warnings:
        yield heading("Warnings of the last hour")
        header = ("AGE", "COUNT", "OBJECT", "REASON", "MESSAGE")
        events = ((age(w.age), str(w.count), w.object, w.reason, w.message) for w in view.warnings)
        yield table(header, events, indent=2)


def _pod_row(pod: Replica) -> tuple[str, ...]:
    def yes(fact: bool | None) -> str:
        return "?" if fact is None else "yes" if fact else "no"

    return (
        *(pod.name, pod.state, yes(pod.is_ready), yes(pod.is_routable), str(pod.restarts)),
        *(age(pod.age), pod.node or "-", pod.revision or "-"),
    )
