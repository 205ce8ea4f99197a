"""`autoglm version`."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from autoglm.cli.options import examples, output_option
from autoglm.cli.output import print_json


@click.command(epilog=examples("autoglm version", "autoglm version --output json"))
@output_option
def command(output: str) -> None:
    """Print the version."""
    versions = {
        "autoglm": version("open-autoglm"),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
    }
    if output == "json":
        print_json(versions)
    else:
        click.echo(" ".join(f"{name} {number}" for name, number in versions.items()))
