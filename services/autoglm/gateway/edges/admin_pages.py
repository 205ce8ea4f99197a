"""The admin port's pages. Called from that port's threads, so they read the pool's views only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict

from autoglm.gateway.endpoints.deployments import Directory, Resource, conflicts_in
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.kube.kinds import Key


def endpoints(views: Collection[EndpointView], now: float) -> dict[str, object]:
    """Return every endpoint with its state and load, by URL."""
    return {"endpoints": [_endpoint(view, now) for view in _by_url(views)]}


def routable(views: Collection[EndpointView]) -> dict[str, object]:
    """Return the pods of AutoGLMDeployments, and whether requests are sent to them now."""
    pods = (_pod(view, view.endpoint.origin) for view in _by_url(views) if view.endpoint.origin)
    return {"endpoints": list(pods)}


def _pod(view: EndpointView, origin: Key) -> dict[str, object]:
    return {
        "namespace": origin.namespace,
        "deployment": origin.name,
        "pod": view.endpoint.pod,
        "address": view.endpoint.address,
        "ready": view.is_routable,
    }


def resources(directory: Directory) -> dict[str, object]:
    """Return every AutoGLMDeployment, with the names that an older one serves in its place and
    those that its namespace may not claim."""
    lost: dict[Key, dict[str, str]] = {}
    denied: dict[Key, list[str]] = {}
    for conflict in sorted(conflicts_in(directory), key=lambda c: (c.loser, c.name)):
        if conflict.owner is None:
            denied.setdefault(conflict.loser, []).append(conflict.name)
        else:
            lost.setdefault(conflict.loser, {})[conflict.name] = str(conflict.owner)
    shown = sorted(directory.resources.values(), key=lambda resource: resource.key)
    return {"resources": [_resource(r, lost.get(r.key, {}), denied.get(r.key, ())) for r in shown]}


def _resource(
    resource: Resource, lost: Mapping[str, str], denied: Collection[str]
) -> dict[str, object]:
    return {
        "namespace": resource.key.namespace,
        "name": resource.key.name,
        "models": [name for name in resource.names if name not in lost and name not in denied],
        "served_by_others": lost,
        "not_allowed": list(denied),
        "state": resource.state,
        "rules": resource.rules.model_dump(by_alias=True, exclude_unset=True),
    }


def _by_url(views: Collection[EndpointView]) -> list[EndpointView]:
    return sorted(views, key=lambda view: view.url)


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
