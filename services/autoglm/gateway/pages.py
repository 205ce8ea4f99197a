"""The admin port's pages. Called from that port's threads, so they read the pool's views only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from autoglm.gateway.endpoints import EndpointView


def endpoints(views: Collection[EndpointView], now: float) -> dict[str, object]:
    """Every endpoint with its state and load, by URL."""
    shown = sorted(views, key=lambda view: view.url)
    return {"endpoints": [_endpoint(view, now) for view in shown]}


def _endpoint(view: EndpointView, now: float) -> dict[str, object]:
    state, live = view.state, view.live
    return {
        "url": view.url,
        "kind": view.endpoint.kind,
        "http": view.http_base,
        "state": state.phase.value,
        "why": state.why,
        "for_seconds": round(now - state.since, 3),
        "failures": state.failures,
        "models": sorted(model.name for model in state.models),
        "in_flight": live.in_flight,
        "others": live.others,
        "capacity": live.capacity,
        "load": asdict(live.load),
    }
