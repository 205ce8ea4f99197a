"""What there is to route to at one moment, as frozen data. Pure; made by the pool.

Decides who serves a name: all endpoints that list it, except those of a resource other than the
name's owner. Routing, validation, pages and health read snapshots.
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
Serving = tuple[v1.Model, EndpointView]


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model and who can be asked for it now. Known without any while its endpoints are away."""

    model: v1.Model
    grpc: tuple[EndpointView, ...] = ()
    http: tuple[EndpointView, ...] = ()
    resource: Resource | None = None
    """The resource that the name belongs to, where resources are known."""
    listed: int = 0
    """How many endpoints serve it, those that are away included."""

    @property
    def rules(self) -> Rules | None:
        return self.resource.rules if self.resource else None

    def endpoints(self, wire: Wire) -> tuple[EndpointView, ...]:
        return self.http if wire == "http" else self.grpc

    @property
    def ready_endpoints(self) -> int:
        return len({view.url for view in (*self.grpc, *self.http)})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All endpoints, and all models by every name they have (aliases, adapters)."""

    endpoints: tuple[EndpointView, ...] = ()
    models: Mapping[str, ModelView] = field(default_factory=lambda: MappingProxyType({}))
    is_ready: bool = False
    """Whether the gateway has what it needs to take requests."""
    unreached: int = 0
    """Endpoints of no resource whose models were never read, so that more may be served."""

    @property
    def has_routable(self) -> bool:
        return any(view.is_routable for view in self.endpoints)


def model_view(name: str, listed: Iterable[Serving], directory: Directory) -> ModelView | None:
    """Who serves a name, of all that list it; None where nobody ever did."""
    found = [(m, v) for m, v in listed if directory.may_serve(v.endpoint.origin, name)]
    owner = directory.owners.get(name) or _oldest(found, directory)
    if owner is not None:
        found = [(m, v) for m, v in found if v.endpoint.origin in (None, owner.key)]
    ready = [(model, view) for model, view in found if view.is_routable]
    # While a pod drains, the other one may be left alone for slow answers, or late to say that it
    # is there: those are answers.
    ready = ready or [(model, view) for model, view in found if view.is_usable]
    views = [view for _, view in ready]
    known = next((model for model, _ in ready or found), None)
    if known is None and owner is None:
        return None
    return ModelView(
        known or v1.Model(name=name),
        tuple(view for view in views if view.speaks("grpc")),
        tuple(view for view in views if view.speaks("http")),
        owner,
        len(found),
    )


def _oldest(found: Iterable[Serving], directory: Directory) -> Resource | None:
    """Whom a name belongs to that no resource declares, such as an adapter loaded by hand."""
    origins = {view.endpoint.origin for _, view in found}
    known = [directory.resources[key] for key in origins if key and key in directory.resources]
    return min(known, key=lambda resource: resource.seniority, default=None)


def take_snapshot(views: Iterable[EndpointView], directory: Directory | None = None) -> Snapshot:
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


def is_unreached(view: EndpointView) -> bool:
    """Whether nothing is known of what it serves; a resource's name its models themselves."""
    return not view.state.models and view.endpoint.origin is None


def check_reached(snapshot: Snapshot, named: str, field: str) -> None:
    """Raises NoReadyEndpoint for a name that an endpoint may serve that was never reached."""
    if snapshot.unreached:
        raise NoReadyEndpoint(
            f"{named} is not served by the endpoints reached so far; {snapshot.unreached} more "
            "could not be reached yet; try again later, or check the gateway's endpoints",
            field=field,
            retry_after=_RETRY_AFTER,
        )


def visible(snapshot: Snapshot, principal: Principal) -> Snapshot:
    """What the principal gets to see of it: the models it may use."""
    if principal.models is None:
        return snapshot
    models = {name: view for name, view in snapshot.models.items() if principal.may_use(name)}
    return replace(snapshot, models=models)


def names_of(view: EndpointView) -> Iterable[tuple[v1.Model, str]]:
    """Every name that the endpoint lists, with its model."""
    for model in view.state.models:
        yield from ((model, name) for name in (model.name, *model.aliases))
