"""`autoglm status` of a cluster: look, derive, show; once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import NoReturn

import click

from autoglm.cli.cluster import ClusterError
from autoglm.cli.cluster_options import NOT_WELL, Where
from autoglm.cli.kube import Look, look
from autoglm.cli.output import document
from autoglm.cli.screen import canvas_of_terminal
from autoglm.cli.status.text import status_text
from autoglm.cli.status.view import views

_EVERY_SECONDS = 2.0


def show(where: Where, name: str, output: str, *, is_watched: bool) -> int:
    """Prints it. NOT_WELL when something is not as it should be."""
    if name and where.is_everywhere:
        raise click.UsageError(f"-A and the name {name} exclude each other; give -n NAMESPACE")
    cluster = where.open()
    namespace = where.namespace_in(cluster)

    def once() -> tuple[str, int]:
        return screen(look(cluster, namespace, name), name, output, time.time())

    if is_watched:
        watch(lambda: once()[0], time.sleep)
    page, code = once()
    click.echo(page, nl=False)
    return code


def screen(seen: Look, name: str, output: str, now: float) -> tuple[str, int]:
    """What is printed, and the exit code."""
    found = views(seen, now)
    code = 0 if all(view.is_well for view in found) else NOT_WELL
    if output != "text":
        items = [asdict(view) for view in found]
        return document({"ready": code == 0, "items": items, "unseen": seen.unseen}, output), code
    if not found:
        return "No AutoGLMDeployment here; `autoglm deploy -f MANIFEST` makes one.\n", code
    return status_text(found, seen.unseen, canvas_of_terminal(), is_full=bool(name)), code


def watch(page: Callable[[], str], sleep: Callable[[float], None]) -> NoReturn:
    """Shows it anew while it changes. A cluster that is away for a while does not end it."""
    shown = ""
    while True:
        try:
            now = page()
        except ClusterError as error:
            now = f"{error.reason}: {error.message}\n"
        if now != shown:
            # On a terminal only.
            click.clear()
            click.echo(now, nl=False)
        shown = now
        sleep(_EVERY_SECONDS)
