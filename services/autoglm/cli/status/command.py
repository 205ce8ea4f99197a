"""`autoglm status`: the status of a gateway, or of the deployments on a Kubernetes cluster.

Any option that selects a cluster shows the cluster; otherwise the gateway is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from autoglm.cli.cluster_options import Where, cluster_options, watch_option
from autoglm.cli.options import connection_options, connects, document_option, examples
from autoglm.cli.status import gateway

_show_gateway = connects(gateway.show)


@click.command(
    epilog=examples(
        "autoglm status",
        "autoglm status --gateway gateway:50051 --metrics-address gateway:9090",
        "autoglm status --kubernetes",
        "autoglm status chat -n models --watch",
        "autoglm status -A --output json | jq .ready",
    )
)
@click.argument("name", default="")
@click.option(
    "-k",
    "--kubernetes",
    is_flag=True,
    help="Show a cluster. Implied by NAME, -n, -A, --context and --kubeconfig.",
)
@cluster_options
@watch_option
@document_option
@click.option("--gateway", default="", metavar="HOST:PORT", help="Same as --address.")
@click.option(
    "--metrics-address",
    default="127.0.0.1:9090",
    envvar="AUTOGLM_METRICS_ADDRESS",
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Admin address of the same gateway.",
)
@connection_options
def command(
    where: Where,
    name: str,
    kubernetes: bool,
    watch: bool,
    output: str,
    gateway: str,
    metrics_address: str,
    **connection: Any,
) -> int:
    """Show the status of a gateway or of deployments, with problems and remedies.

    Shows a gateway, unless NAME, -k, -n, -A, --context or --kubeconfig selects a cluster. Exits
    with 1 if the gateway is not ready, with 3 if a deployment is not healthy.
    """
    if kubernetes or name or where.is_named:
        if gateway:
            raise click.UsageError(f"--gateway {gateway} and a cluster exclude each other")
        return _of_cluster()(where, name, output, is_watched=watch)
    if watch:
        raise click.UsageError("--watch is for a cluster; add -k")
    if gateway:
        connection["address"] = gateway
    code: int = _show_gateway(**connection, metrics_address=metrics_address, output=output)
    return code


def _of_cluster() -> Callable[..., int]:
    """Import the cluster's status lazily, since a gateway's status works in a core install."""
    try:
        from autoglm.cli.status.cluster import show
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("autoglm"):
            raise
        raise click.ClickException(
            f"a cluster needs the package {error.name!r}: pip install 'open-autoglm[cli]'"
        ) from error
    return show
