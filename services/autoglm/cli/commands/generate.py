"""`autoglm generate`: a prompt completed as it is, without a chat template."""

from __future__ import annotations

from typing import Any

import click

from autoglm.cli.options import (
    chosen_model,
    connects,
    examples,
    given_text,
    model_option,
    output_option,
    sampling_options,
)
from autoglm.cli.output import as_dict, print_json
from autoglm.client import Client


@click.command(
    epilog=examples(
        'autoglm generate "What is the gateway?"',
        'autoglm generate --max-tokens 64 --temperature 0 "Once upon a time"',
        "cat prompt.txt | autoglm generate --model tiny-glm --output json",
    )
)
@click.argument("prompt", nargs=-1)
@model_option
@sampling_options
@output_option
@connects
def command(
    client: Client, prompt: tuple[str, ...], model: str, output: str, **sampling: Any
) -> None:
    """Complete PROMPT (or standard input) and stream the text."""
    text = given_text(prompt)
    model = chosen_model(client, model)
    if output == "json":
        print_json(as_dict(client.generate(text, model=model, **sampling)))
        return
    for chunk in client.generate_stream(text, model=model, **sampling):
        click.echo(chunk.text, nl=False)
    click.echo()
