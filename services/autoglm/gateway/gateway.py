"""The composition root: builds everything between the edges and the pods from the settings.

Wires pool, discovery, watches, channels, upstreams, proxy and pipeline, and runs them. Decides
nothing itself. Built by `app`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from autoglm.api.names import read_rules
from autoglm.common.tls import TlsFiles, http_client_context
from autoglm.gateway.admission import Admission
from autoglm.gateway.endpoints import kubernetes_discovery
from autoglm.gateway.endpoints.channels import Channels
from autoglm.gateway.endpoints.endpoint import Endpoint, EndpointView, Phase
from autoglm.gateway.endpoints.kubernetes_cluster import Change
from autoglm.gateway.endpoints.kubernetes_discovery import KubernetesDiscovery
from autoglm.gateway.endpoints.kv_event_watch import KvFollower
from autoglm.gateway.endpoints.load_watch import PodWatch, Watches, load_interval
from autoglm.gateway.endpoints.openai_watch import OpenAIWatch
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.endpoints.static_discovery import Discovery, Sources
from autoglm.gateway.endpoints.stored_responses import ResponseIds
from autoglm.gateway.endpoints.upstream_key import UpstreamKey, key_of_file
from autoglm.gateway.envoy.exchange import Exchanges, TakeOver
from autoglm.gateway.envoy.upstream import EnvoyUpstream
from autoglm.gateway.identity.identity import Identity
from autoglm.gateway.limits.metering import Limits
from autoglm.gateway.pipeline import Identify, LocalPage, Pipeline, Respond
from autoglm.gateway.proxy.grpc_upstream import GrpcUpstream
from autoglm.gateway.proxy.http_upstream import HttpUpstream, client_pool
from autoglm.gateway.proxy.proxy import Defaults, Proxy
from autoglm.gateway.proxy.route_debug import RouteDebug
from autoglm.gateway.proxy.upstream import Upstream
from autoglm.gateway.request.memory_budget import Memory
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.prefix_cache import CacheSalts, read_key
from autoglm.gateway.request.request import Handler, Wire
from autoglm.gateway.request_telemetry import Observer
from autoglm.gateway.routing import Router
from autoglm.gateway.settings import GatewaySettings
from autoglm.gateway.watched_file import WatchedFile
from autoglm.kube.reflector import Connect

_TLS_POLL_SECONDS = 5.0
_log = logging.getLogger("autoglm.gateway")


class GatewayCore:
    """The gateway without its servers.

    `pipeline` handles requests for pods, `edge_pipeline` those that arrive at its own edges.
    `local` handles what the gateway responds to itself. `connect` reaches the
    Kubernetes API in place of the settings' kubeconfig.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        registry: CollectorRegistry,
        connect: Connect | None = None,
    ) -> None:
        self.settings = settings
        self._connect = connect
        self.registry = registry
        self.exchanges = Exchanges()
        self.changed = asyncio.Event()
        """Set when an endpoint has changed; the task that waits for it clears it."""
        self.metrics = Metrics(registry)
        self.pool = Pool(Random(), self._note_change, awaits_lists=settings.kubernetes)
        self.router = Router(self.metrics, Random(), settings.routing_policy)
        self._given: frozenset[Endpoint] = frozenset()
        self.channels = Channels(settings.upstream_tls, settings.max_timeout_seconds)
        self._observer = Observer(self.metrics, lambda name: name in self.pool.snapshot.models)
        self._limits = Limits(
            settings.tenants_file,
            settings.gateway_replicas,
            self.metrics.rate_limited,
            self.metrics.unmetered,
        )
        self.admission = Admission(
            self.pool, settings.admission, self.metrics, self._limits.rates.policy_of
        )
        self.memory = Memory(settings.request_memory_bytes, self.admission.retry_after)
        self.metrics.follow_memory(self.memory)
        self._closing = AsyncExitStack()
        sources = settings.identity
        self._identity = (
            Identity(sources, self.metrics.authentications) if sources.is_configured else None
        )
        key = read_key(settings.prefix_cache_key_file)
        self._cache_salts = CacheSalts(key, settings.prefix_cache) if self._identity else None
        self._response_ids = ResponseIds(key)

    async def start(self) -> None:
        """Build the request path, and begin to watch endpoints, credentials and limits.

        Raises OSError where a file cannot be read, ValueError where a key is invalid.
        """
        settings, pool, closing = self.settings, self.pool, self._closing
        # Names a missing file, which OpenSSL does not.
        settings.upstream_tls.fingerprint()
        self._tls = http_client_context(settings.upstream_tls)
        closing.push_async_callback(self.channels.close)
        http = client_pool(self._tls)
        closing.push_async_callback(http.close)
        key = UpstreamKey(settings.upstream_api_key)
        if settings.upstream_api_key_file:
            file = WatchedFile(settings.upstream_api_key_file, key_of_file)
            key.set(file.value)
            self._keep(file.watch(key.set), "upstream key")

        upstreams: dict[Wire, Upstream] = {
            "grpc": GrpcUpstream(self.channels),
            "http": HttpUpstream(http, key),
        }
        if settings.data_plane == "envoy" or settings.endpoint_picker_address:
            fallbacks = settings.endpoint_picker_fallbacks
            upstreams = {
                wire: EnvoyUpstream(upstream, key, fallbacks)
                for wire, upstream in upstreams.items()
            }
        proxy = Proxy(
            pool,
            upstreams,
            settings.retry_policy,
            self.metrics,
            self.router,
            Random(),
            defaults=Defaults(
                settings.stream_timeouts,
                settings.stream_recovery,
                settings.hedging,
                settings.outlier_detection,
                self._cache_salts,
                self._response_ids,
            ),
        )
        self.pipeline: Handler = Pipeline(
            pool,
            self.admission,
            self._observer,
            self.memory,
            proxy,
            self.identify,
            self._limits,
            self._response_ids,
            RouteDebug(proxy, self.router, self.snapshot, is_open=settings.route_debug),
        )
        self.edge_pipeline: Handler = TakeOver(self.exchanges, self.pipeline)

        def load_seconds() -> float:
            return load_interval(len(pool.views), settings.load_messages_per_second)

        prefixes = self.router.memory.prefixes
        pod_watch = PodWatch(
            pool,
            self.channels,
            settings.connect_timeout_seconds,
            settings.load_timeout_seconds,
            proxy.abandon,
            follow_cache=KvFollower(prefixes, self.channels, self.metrics, load_seconds),
            interval=load_seconds,
        )
        self._watches = Watches({"pod": pod_watch, "openai": OpenAIWatch(pool, http, key)})
        closing.push_async_callback(self._watches.close)

        if self._identity is not None:
            await self._identity.start(closing)
        await self._limits.start(closing)
        sources = Sources(settings.endpoint, settings.endpoints_file, settings.dns_refresh_seconds)
        discovery = Discovery(sources, self._take_endpoints, on_resources=pool.replace_directory)
        await discovery.start()
        self._keep(discovery.run(), "discovery")
        self._keep(self._renew_tls(settings.upstream_tls), "upstream TLS")
        if settings.kubernetes:
            self._keep(self._follow_kubernetes(), "kubernetes")

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task until the gateway is closed."""
        self._closing.push_async_callback(cancel_all, asyncio.create_task(work, name=name))

    def local(self, respond: Respond) -> Handler:
        """Return the handler of a page of the gateway's own."""
        return LocalPage(respond, self._observer, self.memory, self.identify)

    def open(self, respond: Respond) -> Handler:
        """Return the handler of a page that needs no credential."""
        return LocalPage(respond, self._observer, self.memory)

    @property
    def identify(self) -> Identify | None:
        """Return what authenticates a request; None where no credentials are configured."""
        return self._identity.identify if self._identity else None

    def snapshot(self) -> Snapshot:
        return self.pool.snapshot

    async def close(self) -> None:
        """End all tasks and connections."""
        await self._closing.aclose()

    def reconnect(self) -> None:
        """Reconnect to all pods; open requests continue on the old connections."""
        self.channels.renew()
        self._watches.restart()

    async def _follow_kubernetes(self) -> None:
        settings = self.settings
        connect = self._connect or partial(kubernetes_discovery.connect, settings.kubeconfig)
        rules = read_rules(settings.model_name_rules)
        parts = (settings.namespace, connect, self.take_change, Random(), rules)
        await KubernetesDiscovery(*parts).run()

    def take_change(self, change: Change) -> None:
        """Apply a change on Kubernetes."""
        # Endpoints first: once there is a directory, readiness requires that all have been met.
        self._change_endpoints(change.gone, change.come)
        if change.directory is not None:
            self.pool.replace_directory(change.directory)
        self.changed.set()

    def _take_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Replace the endpoints of flags, file and DNS names."""
        before, self._given = self._given, frozenset(endpoints)
        self._change_endpoints(before - self._given, self._given - before)

    def _change_endpoints(self, gone: Iterable[Endpoint], come: Iterable[Endpoint]) -> None:
        gone = tuple(gone)
        self.pool.change_endpoints((e.url for e in gone), come, time.monotonic())
        self._watches.change(gone, come)
        for endpoint in gone:
            # Open requests continue on its channel.
            self.channels.discard(endpoint.url)

    def _note_change(self, before: EndpointView | None, after: EndpointView | None) -> None:
        """Count and log an endpoint's change of state."""
        self.changed.set()
        was = before.state.phase if before else None
        now = after.state.phase if after else None
        if was is now:
            return
        if was is not None:
            self.metrics.endpoints.labels(was.value).dec()
        if now is not None:
            self.metrics.endpoints.labels(now.value).inc()
        if before is not None and now in (None, Phase.EJECTED):
            # A pod that returns at that address has an empty cache.
            self.router.gone(before.url)
        if now is Phase.EJECTED and was in (Phase.READY, Phase.DRAINING):
            self.metrics.ejections.inc()
        view = after or before
        assert view is not None, "an endpoint that came, changed or went"
        phase, why = (now.value, view.state.why) if now else ("removed", "")
        fields = {"endpoint": view.url, "state": phase, "why": why}
        _log.info("endpoint %s is %s", view.url, phase, extra={"fields": fields})

    async def _renew_tls(self, files: TlsFiles) -> None:
        """Reload the certificate files when they change, and reconnect."""
        seen = files.fingerprint()
        while files:
            await asyncio.sleep(_TLS_POLL_SECONDS)
            try:
                now = files.fingerprint()
                if now == seen:
                    continue
                if files.cert_file:
                    self._tls.load_cert_chain(files.cert_file, files.key_file)
                if files.ca_file:
                    self._tls.load_verify_locations(files.ca_file)
            except OSError as error:
                _log.warning("ignoring invalid upstream certificates, keeping the old: %s", error)
                continue
            seen = now
            self.reconnect()


async def cancel_all(*tasks: asyncio.Task[None]) -> None:
    """Cancel the tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
