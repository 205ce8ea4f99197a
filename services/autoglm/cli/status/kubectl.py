"""`kubectl autoglm status`: `autoglm status` of a cluster only."""

from __future__ import annotations

import click

from autoglm.cli.cluster_options import Where, cluster_options, watch_option
from autoglm.cli.options import document_option, examples
from autoglm.cli.status.cluster import show


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
