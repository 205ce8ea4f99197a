"""A snapshot made from scratch, as the pool's own, which changes step by step, has to be."""

from __future__ import annotations

from collections.abc import Iterable

from autoglm.gateway.endpoints.deployments import Directory
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.snapshot import (
    Serving,
    Snapshot,
    is_unreached,
    model_view,
    names_of,
)


def take_snapshot(views: Iterable[EndpointView], directory: Directory | None = None) -> Snapshot:
    """Return a snapshot of these endpoints."""
    endpoints, directory = tuple(views), directory or Directory()
    listed: dict[str, list[Serving]] = {name: [] for name in directory.owners}
    for view in endpoints:
        for model, name in names_of(view):
            listed.setdefault(name, []).append((model, view))
    models = {name: model_view(name, found, directory) for name, found in listed.items()}
    is_ready = any(view.is_usable for view in endpoints)
    unreached = sum(is_unreached(view) for view in endpoints)
    known = {n: m for n, m in models.items() if m is not None}
    return Snapshot(endpoints, known, is_ready, unreached)
