"""`autoglm schema`: the JSON Schema of manifests, for editors."""

from __future__ import annotations

import json

import click

from autoglm.api.crd.json_schema import json_schema
from autoglm.cli.options import examples


@click.command(
    epilog=examples(
        "autoglm schema > autoglm.schema.json",
        "# first line of a manifest: # yaml-language-server: $schema=autoglm.schema.json",
    )
)
def command() -> None:
    """Print the JSON Schema of an AutoGLMDeployment, with which editors complete manifests."""
    click.echo(json.dumps(json_schema(), indent=2))
