"""`autoglm explain NAME`: the steps of a deployment from spec to URL, and the first failed one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

import click
from rich.console import RenderableType
from rich.text import Text

from autoglm.cli.cluster_options import NOT_HEALTHY, Where, cluster_options
from autoglm.cli.kube import read_state
from autoglm.cli.options import document_option, examples
from autoglm.cli.output import document
from autoglm.cli.screen import STYLES, Canvas, canvas_of_terminal, drawn, heading, sentence
from autoglm.cli.status.explain_view import Explanation, Piece, Step, explain


@click.command(
    epilog=examples("autoglm explain chat", "autoglm explain chat -n models --output json")
)
@click.argument("name")
@cluster_options
@document_option
def command(where: Where, name: str, output: str) -> int:
    """Check each step of an AutoGLMDeployment, from its spec to its URL.

    Exits with 3 if a step failed.
    """
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
        parts += _step(number, step)
    if failed_step:
        text = f"First failed step: {failed_step.name}: {failed_step.found}"
        parts += ["", heading(text, "red")]
    if view.advice:
        parts += ["", heading("What to do")]
        parts += [sentence(line) for line in view.advice if "explain" not in line]
    return drawn(parts, canvas)


def _step(number: int, step: Step) -> Iterator[RenderableType]:
    state = Text(f"{step.state:7}", style=STYLES[step.state])
    yield Text.assemble(f"{number} ", (f"{step.name:10}", "bold"), state, f"  {step.found}")
    for piece in step.pieces:
        yield from _piece(piece)
    if step.command:
        yield sentence(f"details: {step.command}", 6, "dim")


def _piece(piece: Piece) -> Iterator[RenderableType]:
    style = "" if piece.state == "ok" else STYLES[piece.state]
    yield sentence(f"{piece.state:7}  {piece.what}: {piece.found}", 4, style)
    if piece.command:
        yield sentence(f"details: {piece.command}", 13, "dim")
