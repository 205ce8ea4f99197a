"""`autoglm models`."""

from __future__ import annotations

import click

from autoglm.cli.options import connects, examples, output_option
from autoglm.cli.output import as_dict, print_json, print_table
from autoglm.client import Client


@click.command(
    epilog=examples(
        "autoglm models",
        "autoglm models --address gateway.example:50051 --tls-ca-file ca.pem",
        "autoglm models --output json",
    )
)
@output_option
@connects
def command(client: Client, output: str) -> None:
    """List the available models."""
    models = client.list_models()
    if output == "json":
        print_json([as_dict(m) for m in models])
        return
    print_table(
        ["NAME", "TASKS", "CONTEXT", "ENGINE", "READY"],
        [
            (m.name, ",".join(m.tasks), m.max_model_len or "-", m.engine, m.ready_endpoints or "-")
            for m in models
        ],
    )
