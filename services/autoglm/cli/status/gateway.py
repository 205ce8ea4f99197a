"""`autoglm status` of a gateway: its readiness, models and endpoints.

The models are read over gRPC; readiness and endpoints from the admin port, which may be
unreachable: that is shown and is not a failure.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from autoglm import v1
from autoglm.cli.output import as_dict, document, print_table
from autoglm.client import Client
from autoglm.common.errors import AutoGLMError

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


@dataclass(frozen=True, slots=True)
class _Status:
    """What was read from a gateway; None for a port that did not respond."""

    models: list[v1.Model] | None
    error: str
    readiness: Mapping[str, Any] | None
    endpoints: Sequence[Mapping[str, Any]] | None

    @property
    def is_ready(self) -> bool:
        return self.models is not None and (self.readiness or {"ready": True})["ready"] is True


def show(client: Client, metrics_address: str, output: str) -> int:
    """Print the status; return 1 if the gateway is not ready."""
    status = _observe(client, metrics_address)
    if output == "text":
        _print(status, metrics_address)
    else:
        click.echo(document(_document(status), output), nl=False)
    return 0 if status.is_ready else 1


def _observe(client: Client, metrics_address: str) -> _Status:
    models, error = None, ""
    try:
        models = client.list_models()
    except AutoGLMError as failure:
        error = f"{failure.reason}: {failure.message}"
    ready, body = _page(metrics_address, "/health/ready")
    _, endpoints = _page(metrics_address, "/admin/endpoints")
    return _Status(
        models,
        error,
        None if body is None else {**body, "ready": ready},
        None if endpoints is None else endpoints.get("endpoints", []),
    )


def _page(address: str, path: str) -> tuple[bool, dict[str, Any] | None]:
    """Return whether the status is 200, and the JSON of a page; None without a response or JSON."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=_PAGE_SECONDS) as page:
            return True, json.load(page)
    except urllib.error.HTTPError as error:
        with error:
            return False, _json(error.read())
    except (OSError, ValueError):
        return False, None


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _document(status: _Status) -> dict[str, Any]:
    models = status.models
    return {
        "ready": status.is_ready,
        "error": status.error or None,
        "gateway": status.readiness,
        "models": None if models is None else [as_dict(m) for m in models],
        "endpoints": status.endpoints,
    }


def _print(status: _Status, metrics_address: str) -> None:
    click.echo(f"Gateway: {'ready' if status.is_ready else 'not ready'}")
    if status.error:
        click.echo(f"  {status.error}", err=True)
    if status.models == []:
        click.echo("\nModels: none")
    elif status.models:
        click.echo("\nModels:")
        rows = [(m.name, m.engine, m.max_model_len, m.ready_endpoints) for m in status.models]
        print_table(["NAME", "ENGINE", "CONTEXT", "READY"], rows)
    if status.endpoints is None:
        click.echo(f"\nEndpoints: no response from the admin port at {metrics_address}")
    elif status.endpoints:
        click.echo("\nEndpoints:")
        print_table(list(_COLUMNS), [_row(e) for e in status.endpoints])


def _row(endpoint: Mapping[str, Any]) -> list[str]:
    facts = {**endpoint, **endpoint.get("load", {})}
    return [_cell(facts.get(name)) for name in _COLUMNS.values()]


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value in (None, "") else str(value)
