"""Status of the deployments on a cluster, for `autoglm status` and `kubectl autoglm status`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import NoReturn

import click

from autoglm.cli.cluster import ClusterError
from autoglm.cli.cluster_options import NOT_HEALTHY, Where, cluster_options, watch_option
from autoglm.cli.kube import ClusterState, read_state
from autoglm.cli.options import document_option, examples
from autoglm.cli.output import document
from autoglm.cli.screen import canvas_of_terminal
from autoglm.cli.status.text import status_text
from autoglm.cli.status.view import views

_EVERY_SECONDS = 2.0


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


def screen(seen: ClusterState, name: str, output: str, now: float) -> tuple[str, int]:
    """Return the text to print and the exit code."""
    found = views(seen, now)
    code = 0 if all(view.is_healthy for view in found) else NOT_HEALTHY
    if output != "text":
        items = [asdict(view) for view in found]
        return document(
            {"ready": code == 0, "items": items, "not_accessible": seen.not_accessible}, output
        ), code
    if not found:
        return "No AutoGLMDeployment found; create one with `autoglm deploy -c FILE`.\n", code
    return status_text(found, seen.not_accessible, canvas_of_terminal(), is_full=bool(name)), code


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
