"""`autoglm status`: the status of a gateway, or of the deployments on a Kubernetes cluster.

Any option that selects a cluster shows the cluster; otherwise the gateway is shown: its readiness,
models and endpoints. The models are read over gRPC; readiness and endpoints from the admin port,
which may be unreachable: that is shown and is not a failure.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import click

from autoglm.cli.options import (
    Where,
    cluster_options,
    connection_options,
    connects_if_possible,
    document_option,
    examples,
    watch_option,
)
from autoglm.cli.output import as_dict, document, print_table
from autoglm.client import Client
from autoglm.common.errors import AutoGLMError, PermissionDenied, Unauthenticated
from autoglm.common.packages import install_command

_PAGE_SECONDS = 3.0
# Columns of the endpoint table and their keys on the gateway's page, with `load` flattened.
_COLUMNS = {
    "ENDPOINT": "url",
    "STATE": "state",
    "MODELS": "models",
    "IN FLIGHT": "in_flight",
    "RUNNING": "running",
    "WAITING": "waiting",
    "KV CACHE": "kv_cache_usage",
    "WHY": "why",
}


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
        try:
            # Imported here, since a gateway's status works in a core install.
            from autoglm.cli.status.cluster import show
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("autoglm"):
                raise
            raise click.ClickException(
                f"a cluster needs the package {error.name!r}: {install_command('cli')}"
            ) from error
        return show(where, name, output, is_watched=watch)
    if watch:
        raise click.UsageError("--watch is for a cluster; add -k")
    if gateway:
        connection["address"] = gateway
    code: int = _show_gateway(**connection, metrics_address=metrics_address, output=output)
    return code


@connects_if_possible
def _show_gateway(
    client: Client, unreachable: AutoGLMError | None, metrics_address: str, output: str
) -> int:
    """Print the status; return 1 if the gateway is not ready.

    Models, readiness or endpoints are None if their port did not respond. A gateway that requires
    a credential for its models is ready if its admin port says so.
    """
    models, failure = None, unreachable
    if unreachable is None:
        try:
            models = client.list_models()
        except AutoGLMError as caught:
            failure = caught
    error = f"{failure.reason}: {failure.message}" if failure else ""
    has_status_200, readiness = _page(metrics_address, "/health/ready")
    if readiness is not None:
        readiness = {**readiness, "ready": has_status_200}
    _, page = _page(metrics_address, "/admin/endpoints")
    endpoints = None if page is None else page.get("endpoints", [])
    is_locked = isinstance(failure, Unauthenticated | PermissionDenied)
    is_serving = models is not None or is_locked
    is_ready = is_serving and (readiness is None or has_status_200)
    if output != "text":
        value = {
            "ready": is_ready,
            "error": error or None,
            "gateway": readiness,
            "models": None if models is None else [as_dict(m) for m in models],
            "endpoints": endpoints,
        }
        click.echo(document(value, output), nl=False)
        return 0 if is_ready else 1
    reasons = [] if is_ready else _reasons(readiness or {})
    click.echo(": ".join(["Gateway", "ready" if is_ready else "not ready", *reasons[:1]]))
    for reason in reasons[1:]:
        click.echo(f"  {reason}")
    if error:
        click.echo(f"  {error}", err=True)
    if is_locked:
        click.echo("\nModels: not shown without a credential; give it with --api-key-file")
    elif models == []:
        click.echo("\nModels: none")
    elif models:
        click.echo("\nModels:")
        rows = [(m.name, m.engine, m.max_model_len, m.ready_endpoints) for m in models]
        print_table(["NAME", "ENGINE", "CONTEXT", "READY"], rows)
    if endpoints is None:
        click.echo(f"\nEndpoints: no response from the admin port at {metrics_address}")
    elif endpoints:
        click.echo("\nEndpoints:")
        facts = [{**endpoint, **endpoint.get("load", {})} for endpoint in endpoints]
        cells = [[_cell(each.get(name)) for name in _COLUMNS.values()] for each in facts]
        print_table(list(_COLUMNS), cells)
    return 0 if is_ready else 1


def _reasons(readiness: Mapping[str, Any]) -> list[str]:
    """Return why a gateway is not ready, or what the start of a pod does, by its own page."""
    start = readiness.get("start")
    stage = start.get("text") if isinstance(start, Mapping) else None
    return [str(each) for each in readiness.get("reasons") or ([stage] if stage else [])]


def _page(address: str, path: str) -> tuple[bool, dict[str, Any] | None]:
    """Return whether the status is 200, and the JSON of a page; None without a response or JSON."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=_PAGE_SECONDS) as page:
            return True, json.load(page)
    except urllib.error.HTTPError as error:
        with error:
            try:
                value = json.loads(error.read())
            except ValueError:
                return False, None
            return False, value if isinstance(value, dict) else None
    except (OSError, ValueError):
        return False, None


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value in (None, "") else str(value)
