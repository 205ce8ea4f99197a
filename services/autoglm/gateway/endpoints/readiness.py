"""Reasons for which a gateway is not ready, as sentences for its admin page. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from autoglm.gateway.endpoints.deployments import Resource
from autoglm.gateway.endpoints.endpoint import EndpointView, Phase

_SHOWN = 10
"""Resources and endpoints that are named."""


def without_endpoint(
    views: Collection[EndpointView], resources: Collection[Resource]
) -> Iterator[str]:
    """Yield why a gateway has no endpoint to send requests to."""
    if not views and not resources:
        yield (
            "it has no endpoints; give --endpoint, --endpoints-file, or --kubernetes for those of "
            "a cluster"
        )
        return
    yield "no model has a ready replica" if resources else "no endpoint is ready"
    states = (resource.state for resource in _by_key(resources) if resource.state)
    yield from _at_most((*states, *map(_of_endpoint, _by_url(views))))


def before_lists(views: Collection[EndpointView], *, has_lists: bool) -> Iterator[str]:
    """Yield why a gateway that follows a cluster has not begun to accept requests."""
    if not has_lists:
        yield "the Kubernetes API has not listed the AutoGLMDeployments yet; the log says why"
        return
    untried = [view for view in _by_url(views) if view.state.phase is Phase.CONNECTING]
    yield f"{len(untried)} of {len(views)} endpoints have not been tried yet"
    yield from _at_most([_of_endpoint(view) for view in untried])


def _of_endpoint(view: EndpointView) -> str:
    why = f": {view.state.why}" if view.state.why else ""
    return f"{view.url} is {view.state.phase.value}{why}"


def _at_most(sentences: Collection[str]) -> Iterator[str]:
    yield from islice(sentences, _SHOWN)
    if (more := len(sentences) - _SHOWN) > 0:
        yield f"and {more} more"


def _by_key(resources: Iterable[Resource]) -> list[Resource]:
    return sorted(resources, key=lambda resource: resource.key)


def _by_url(views: Iterable[EndpointView]) -> list[EndpointView]:
    return sorted(views, key=lambda view: view.url)
