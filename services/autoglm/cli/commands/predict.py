"""`autoglm predict`."""

from __future__ import annotations

import click

from autoglm.cli.options import (
    chosen_model,
    connects,
    examples,
    given_text,
    model_option,
    output_option,
)
from autoglm.cli.output import as_dict, print_json, print_table
from autoglm.client import Client


@click.command(
    epilog=examples(
        'autoglm predict --label good --label bad "I like it."',
        'autoglm predict --task "Which part is this about?" --label gateway --label operator TEXT',
        "autoglm predict --label spam --label ham --output json < mail.txt",
    )
)
@click.argument("text", nargs=-1)
@click.option("--label", "labels", multiple=True, help="A possible label; may be repeated.")
@click.option("--task", default="", help="Instruction for the model.")
@model_option
@output_option
@connects
def command(
    client: Client,
    text: tuple[str, ...],
    labels: tuple[str, ...],
    task: str,
    model: str,
    output: str,
) -> None:
    """Classify TEXT (or standard input) over labels; without labels, generate a response."""
    prompt = given_text(text)
    model = chosen_model(client, model)
    response = client.predict(prompt, model=model, labels=labels, task=task)
    if output == "json":
        print_json(as_dict(response))
    elif response.labels:
        print_table(["LABEL", "SCORE"], [(s.label, f"{s.score:.4f}") for s in response.labels])
    else:
        click.echo(response.output)
