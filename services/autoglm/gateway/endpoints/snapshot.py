"""The endpoints and models at one moment, as frozen data. Pure; made by the pool.

A name is served by all endpoints that list it, except those of a resource other than its owner.
Routing, validation, admin pages and health read snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from autoglm import v1
from autoglm.common.errors import NoReadyEndpoint
from autoglm.gateway.endpoints.deployments import Directory, Resource, Rules
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import Wire

_RETRY_AFTER = 1.0
_NO_RESOURCE = Rules()
Serving = tuple[v1.Model, EndpointView]


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model and its usable endpoints; without any while all of them are unavailable."""

    model: v1.Model
    grpc: tuple[EndpointView, ...] = ()
    http: tuple[EndpointView, ...] = ()
    resource: Resource | None = None
    """The resource that owns the name, if resources are known."""
    listed: int = 0
    """The number of endpoints that serve it, unavailable ones included."""

    @property
    def rules(self) -> Rules:
        """Return the rules of the model's resource; without one the gateway's settings apply."""
        return self.resource.rules if self.resource else _NO_RESOURCE

    def endpoints(self, wire: Wire) -> tuple[EndpointView, ...]:
        """Return the usable endpoints that speak gRPC or REST."""
        return self.http if wire == "http" else self.grpc

    @property
    def ready_endpoints(self) -> int:
        """Return the number of usable endpoints."""
        return len({view.url for view in (*self.grpc, *self.http)})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All endpoints, and all models by each of their names (aliases and adapters included)."""

    endpoints: tuple[EndpointView, ...] = ()
    models: Mapping[str, ModelView] = field(default_factory=lambda: MappingProxyType({}))
    is_ready: bool = False
    """Whether the gateway can accept requests."""
    unreached: int = 0
    """The number of endpoints without a resource that were never reached: they may serve more."""

    def rules_of(self, name: str) -> Rules:
        """Return the rules for requests of a model, which may be unknown."""
        model = self.models.get(name)
        return model.rules if model else _NO_RESOURCE


def model_view(name: str, listed: Iterable[Serving], directory: Directory) -> ModelView | None:
    """Return the view of a name from the endpoints that list it; None if none serves or owns it."""
    found = [(m, v) for m, v in listed if directory.may_serve(v.endpoint.origin, name)]
    owner = directory.owners.get(name)
    if owner is None:
        # A name that no resource declares, such as an adapter loaded by hand.
        origins = {view.endpoint.origin for _, view in found}
        known = [directory.resources[key] for key in origins if key and key in directory.resources]
        owner = min(known, key=lambda resource: resource.seniority, default=None)
    if owner is not None:
        found = [(m, v) for m, v in found if v.endpoint.origin in (None, owner.key)]
    ready = [(model, view) for model, view in found if view.is_routable]
    # While one pod drains, the other may be ejected for slow responses or a late load report; it
    # can still serve requests.
    ready = ready or [(model, view) for model, view in found if view.is_usable]
    views = [view for _, view in ready]
    model = next((model for model, _ in ready or found), None)
    if model is None and owner is None:
        return None
    return ModelView(
        model or v1.Model(name=name),
        tuple(view for view in views if view.speaks("grpc")),
        tuple(view for view in views if view.speaks("http")),
        owner,
        len(found),
    )


def is_unreached(view: EndpointView) -> bool:
    """Return whether its models are unknown; those of a resource are named by the resource."""
    return not view.state.models and view.endpoint.origin is None


def check_reached(snapshot: Snapshot, named: str, field: str) -> None:
    """Raise NoReadyEndpoint for an unknown name if endpoints that may serve it were not reached."""
    if snapshot.unreached:
        raise NoReadyEndpoint(
            f"{named} is not served by the endpoints reached so far; {snapshot.unreached} more "
            "could not be reached yet; try again later, or check the gateway's endpoints",
            field=field,
            retry_after=_RETRY_AFTER,
        )


def visible(snapshot: Snapshot, principal: Principal) -> Snapshot:
    """Return the snapshot with only the models that the caller may use."""
    if principal.models is None:
        return snapshot
    models = {name: view for name, view in snapshot.models.items() if principal.may_use(name)}
    return replace(snapshot, models=models)


def names_of(view: EndpointView) -> Iterable[tuple[v1.Model, str]]:
    """Return every name that the endpoint lists, with its model."""
    for model in view.state.models:
        yield from ((model, name) for name in (model.name, *model.aliases))
