"""Keeps the state of each endpoint and publishes them all as a frozen `Snapshot`.

Does no I/O, never waits, reads no clock. Discovery adds and removes endpoints and resources,
watches and the proxy feed events; routing, validation and health read snapshots. A change costs in
proportion to what it affects, so that thousands of endpoints may change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from random import Random

from autoglm.gateway.endpoints.deployments import Directory
from autoglm.gateway.endpoints.endpoint import (
    Endpoint,
    EndpointView,
    Event,
    Live,
    Loaded,
    Phase,
    State,
    step,
    view_of,
)
from autoglm.gateway.endpoints.readiness import before_lists, without_endpoint
from autoglm.gateway.endpoints.snapshot import (
    ModelView,
    Serving,
    Snapshot,
    is_unreached,
    model_view,
    names_of,
)

# Called for every change of a snapshot: the endpoint before and after, None if absent.
Listener = Callable[[EndpointView | None, EndpointView | None], None]


class Pool:
    """The states of all endpoints, by URL.

    With `awaits_lists` the gateway becomes ready, and stays ready, once the resources are listed
    and every endpoint was connected to, even if there are none; otherwise it is ready while any
    endpoint is usable.
    """

    def __init__(
        self,
        rng: Random,
        on_change: Listener = lambda before, after: None,
        *,
        awaits_lists: bool = False,
    ) -> None:
        self._rng = rng
        self._on_change = on_change
        self._awaits_lists = awaits_lists
        self._has_lists = self._has_met_all = False
        self._views: dict[str, EndpointView] = {}
        self._listed: dict[str, dict[str, Serving]] = {}
        self._directory = Directory()
        self._models: dict[str, ModelView] = {}
        self._stale: set[str] = set()
        self._probing: set[str] = set()
        self._unreached: set[str] = set()
        self._snapshot: Snapshot | None = Snapshot()

    @property
    def snapshot(self) -> Snapshot:
        """Return the current snapshot."""
        if self._snapshot is None:
            self._snapshot = self._take_snapshot()
        return self._snapshot

    @property
    def views(self) -> Collection[EndpointView]:
        """Return all endpoints; safe to read from other threads, as is the directory."""
        return self._views.values()

    def view(self, url: str) -> EndpointView | None:
        """Return the endpoint of the URL; None if it was removed."""
        return self._views.get(url)

    @property
    def is_ready(self) -> bool:
        """Return whether the gateway can accept requests; safe to read from other threads."""
        if not self._awaits_lists:
            return any(view.is_usable for view in self.views)
        if not self._has_met_all and self._has_lists:
            self._has_met_all = all(view.state.phase is not Phase.CONNECTING for view in self.views)
        return self._has_met_all

    def reasons(self) -> list[str]:
        """Return why the gateway cannot accept requests; safe to call from other threads."""
        if self.is_ready:
            return []
        if self._awaits_lists:
            return list(before_lists(self.views, has_lists=self._has_lists))
        return list(without_endpoint(self.views, self.directory.resources.values()))

    @property
    def directory(self) -> Directory:
        """Return the known resources."""
        return self._directory

    def change_endpoints(self, gone: Iterable[str], come: Iterable[Endpoint], now: float) -> None:
        """Remove and add endpoints. One that replaces another with its URL gets a new state."""
        gone, come = set(gone), tuple(come)
        before = self._views
        # Other threads read `views`, so its keys change only by replacing the dict.
        kept = {url: view for url, view in before.items() if url not in gone}
        started = {e.url: view_of(e, State(since=now), Live()) for e in come}
        self._views = kept | started
        for url in gone & before.keys():
            self._note(url, before[url], None)
        for url, view in started.items():
            self._note(url, kept.get(url), view)

    def replace_directory(self, directory: Directory) -> None:
        """Replace all resources."""
        before, self._directory, self._has_lists = self._directory.owners, directory, True
        after = directory.owners
        changed = {n for n in before.keys() | after.keys() if before.get(n) is not after.get(n)}
        # Names that no resource declares belong to the oldest resource that serves them.
        self._stale |= changed | (self._listed.keys() - after.keys())
        self._snapshot = None

    def apply(self, url: str, event: Event, now: float) -> State | None:
        """Apply an event; return the endpoint's new state, None if it was removed."""
        view = self._views.get(url)
        if view is None:
            return None
        if isinstance(event, Loaded):
            view.live.take(event.load, view.state.weight(now))
        state = step(view.state, event, now, self._rng)
        if state is not view.state:
            after = view_of(view.endpoint, state, view.live)
            self._views[url] = after
            self._note(url, view, after)
        return state

    def probed(self) -> set[str]:
        """Return the endpoints with a probe request in flight."""
        if not self._probing:
            return set()
        return {url for url in self._probing if self._views[url].live.in_flight}

    def _note(self, url: str, before: EndpointView | None, after: EndpointView | None) -> None:
        for _, name in names_of(before) if before else ():
            self._stale.add(name)
            self._listed[name].pop(url, None)
        for model, name in names_of(after) if after else ():
            self._stale.add(name)
            assert after is not None
            self._listed.setdefault(name, {})[url] = (model, after)
        if after is not None and after.state.probing:
            self._probing.add(url)
        else:
            self._probing.discard(url)
        if after is not None and is_unreached(after):
            self._unreached.add(url)
        else:
            self._unreached.discard(url)
        self._snapshot = None
        self._on_change(before, after)

    def _take_snapshot(self) -> Snapshot:
        models = dict(self._models)
        for name in self._stale:
            listed = self._listed.get(name, {})
            found = model_view(name, listed.values(), self._directory)
            if not listed:
                self._listed.pop(name, None)
            if found is None:
                models.pop(name, None)
            else:
                models[name] = found
        self._models, self._stale = models, set()
        endpoints = tuple(self._views.values())
        return Snapshot(endpoints, models, self.is_ready, len(self._unreached))
