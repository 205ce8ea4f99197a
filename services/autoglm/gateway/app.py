"""The gateway: builds the core and its edges, serves and drains. Run by `process`.

On drain, health is NOT_SERVING while new requests are still accepted for a moment, so that load
balancers notice first; then no connection is accepted, and streams may end within the grace period.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY, CollectorRegistry

from autoglm.common import rpc
from autoglm.common.addresses import cannot_listen, network_of, split_address
from autoglm.common.admin_server import AdminServer
from autoglm.common.process import collect_garbage, memory_limit_bytes
from autoglm.common.reflection import add_reflection
from autoglm.common.tls import http_server_context, reload_http_server
from autoglm.gateway.edges import admin_pages
from autoglm.gateway.edges.cors import Cors
from autoglm.gateway.edges.grpc import GrpcEdge, GrpcParts
from autoglm.gateway.edges.rest import RestEdge, RestParts
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy.endpoint_picker.server import LIVENESS, READINESS, PickerServer
from autoglm.gateway.envoy.plane import EnvoyPlane
from autoglm.gateway.envoy.program import EnvoyFailed
from autoglm.gateway.gateway import GatewayCore, cancel_all
from autoglm.gateway.request.grpc_methods import INFERENCE, OIP
from autoglm.gateway.settings import GatewaySettings
from autoglm.http1.rules import DEFAULT_TIMEOUTS, Limits, Timeouts
from autoglm.http1.server import Server
from autoglm.kube.reflector import Connect

_TLS_POLL_SECONDS = 5.0
_LAST_CALLS_SECONDS = 0.5
# The part of the grace period in which requests may still wait in the queue.
_WAIT_SHARE = 0.8
# Concurrent gRPC calls for each request that may be in flight: admission's errors are clearer.
_CALLS = 4
_REFLECTED = (INFERENCE, OIP, health.SERVICE_NAME)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = logging.getLogger("autoglm.gateway")


class AddressInUse(Exception):
    """An address cannot be bound; the message names it and the remedy."""


@contextmanager
def _binding(address: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        # Those of `rpc.bind` name the address already.
        why = cannot_listen(address, error) if error.strerror else str(error)
        remedy = "end what listens there, or choose another address"
        raise AddressInUse(f"{why}; {remedy}") from error


class Gateway:
    """A gateway in this process. The ports are set after `start`.

    `connect` reaches the Kubernetes API in place of the kubeconfig.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        registry: CollectorRegistry = REGISTRY,
        connect: Connect | None = None,
    ) -> None:
        self._settings = settings = settings.with_memory(memory_limit_bytes())
        self.core = GatewayCore(settings, registry, connect)
        self._plane = EnvoyPlane(settings) if settings.data_plane == "envoy" else None
        self._health = health.aio.HealthServicer()
        self._draining = self._is_listening = False
        self._rest: Server | None = None
        self._grpc: grpc.aio.Server | None = None
        self._picker: PickerServer | None = None
        self._admin: AdminServer | None = None
        self._background: list[asyncio.Task[None]] = []
        self.grpc_port = self.http_port = self.admin_port = self.picker_port = 0

    async def start(self) -> None:
        """Serve on all ports. Raises AddressInUse, and OSError where a file cannot be read."""
        settings, core = self._settings, self.core
        # Names a missing file, which OpenSSL does not.
        settings.server_tls.fingerprint()
        settings.endpoint_picker_tls.fingerprint()
        await core.start()
        self._start_admin()
        await self._start_grpc()
        await self._start_rest()
        if self._plane is not None:
            for address in self._plane.addresses:
                with _binding(address):
                    rpc.check_free(address)
            bound = await self._plane.start(core.pipeline, core.exchanges, self._bounds)
            self.grpc_port, self.http_port = bound["grpc"], bound["http"]
        if settings.endpoint_picker_address:
            most = _CALLS * settings.max_inflight
            picker = PickerServer(settings, core.pipeline, self._bounds, self._health, most)
            with _binding(settings.endpoint_picker_address):
                await picker.start()
            self._picker, self.picker_port = picker, picker.port
        self._is_listening = True
        self._keep(self._follow_health(), "health")
        self._keep(collect_garbage(lambda: core.admission.in_flight), "garbage")
        ports = {"grpc": self.grpc_port, "http": self.http_port, "admin": self.admin_port}
        if self._picker is not None:
            ports["endpoint_picker"] = self.picker_port
        _log.info("listening", extra={"fields": ports})

    async def broken(self) -> None:
        """Raise EnvoyFailed once the gateway's Envoy has exited unexpectedly; never returns."""
        if self._plane is not None:
            code = await self._plane.ended()
            raise EnvoyFailed(f"Envoy ended with code {code}; its own lines above say why")
        await asyncio.Event().wait()

    def is_ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return readiness with details. Also called from the admin port's threads."""
        routable = sum(view.is_routable for view in self.core.pool.views)
        details = {"draining": self._draining, "routable_endpoints": routable}
        is_ready = self.core.pool.is_ready and self._is_listening
        return is_ready and not self._draining, details

    def readiness(self) -> tuple[bool, Mapping[str, Any]]:
        """Return readiness with its reasons, which are for the admin port alone: they name models
        and addresses. Called from its threads."""
        is_ready, details = self.is_ready()
        if is_ready:
            return is_ready, details
        reasons = self.core.pool.reasons()
        if self._draining:
            reasons = ["it drains, and ends when its requests have ended"]
        elif not self._is_listening:
            reasons = ["it starts: its ports are not open yet", *reasons]
        return is_ready, {**details, "listening": self._is_listening, "reasons": reasons}

    async def drain(self) -> None:
        """Report NOT_SERVING, wait for load balancers to notice, and let open requests end."""
        self._draining = True
        if self._plane is not None:
            await self._plane.turn_away()
        elif self._rest is not None:
            self._rest.begin_drain()
        await self._health.enter_graceful_shutdown()
        _log.info("draining")
        await asyncio.sleep(self._settings.drain_delay_seconds)
        grace = self._settings.shutdown_grace_seconds
        # A request that has no slot by then could not end in time either.
        rejection = asyncio.get_running_loop().call_later(
            grace * _WAIT_SHARE, self.core.admission.reject_waiting
        )
        if self._plane is not None:
            await self._finish_envoy(self._plane, grace)
        await self._stop_edges(grace)
        rejection.cancel()

    async def close(self) -> None:
        """End everything that still runs, at once."""
        await cancel_all(*self._background)
        if self._plane is not None:
            await self._plane.close()
        await self._stop_edges(0)
        await self.core.close()
        if self._admin is not None:
            await asyncio.to_thread(self._admin.close)

    async def _stop_edges(self, grace: float) -> None:
        grpc_server, rest_server, self._grpc, self._rest = self._grpc, self._rest, None, None
        picker, self._picker = self._picker, None
        await asyncio.gather(
            *([picker.stop(grace)] if picker else []),
            *([self._stop_grpc(grpc_server, grace)] if grpc_server else []),
            *([rest_server.stop(grace)] if rest_server else []),
        )

    async def _stop_grpc(self, server: grpc.aio.Server, grace: float) -> None:
        if not grace:
            await server.stop(None)
            return
        stopping = await self._edge.gate.stop(server, grace)
        idle = asyncio.create_task(self.core.admission.idle.wait())
        await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # Never two stops at once: one destroys the server under the other, and grpc.aio crashes.
        stopping.cancel()
        await asyncio.wait((stopping,))
        # What is left are streams that only watch (health); they end on cancellation.
        await server.stop(min(grace, _LAST_CALLS_SECONDS))

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task until the gateway is closed."""
        self._background.append(asyncio.create_task(work, name=name))

    def _start_admin(self) -> None:
        pool, address = self.core.pool, self._settings.metrics_address
        with _binding(address):
            self._admin = AdminServer(
                address,
                self.readiness,
                registry=self.core.registry,
                pages={
                    "/admin/endpoints": lambda: admin_pages.endpoints(pool.views, time.monotonic()),
                    "/admin/resources": lambda: admin_pages.resources(pool.directory),
                    "/routable": lambda: admin_pages.routable(pool.views),
                },
            )
        self.admin_port = self._admin.port
        self._keep(self._admin.lag.beat(), "loop lag")

    async def _start_grpc(self) -> None:
        settings, core = self._settings, self.core
        parts = GrpcParts(
            core.edge_pipeline,
            core.local,
            core.open,
            core.snapshot,
            settings.default_timeout_seconds,
            settings.max_timeout_seconds,
            settings.slow_reader_seconds,
            core.identify,
            settings.content_bounds,
            settings.proxies,
        )
        server = rpc.server(
            max_message_bytes=settings.message_bytes,
            max_connections=settings.max_connections,
            max_calls=_CALLS * settings.max_inflight,
            # Envoy closes its clients' idle connections itself.
            idle_seconds=DEFAULT_TIMEOUTS.idle if self._plane is None else None,
        )
        self._edge = GrpcEdge(parts)
        self._keep(self._edge.arrivals.watch(settings.process_memory_bytes), "memory")
        server.add_generic_rpc_handlers(self._edge.handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_reflection(_REFLECTED, server)
        with _binding(settings.grpc_address):
            if self._plane is not None:
                server.add_insecure_port(f"unix:{self._plane.sockets.grpc}")
            else:
                self.grpc_port = rpc.bind(server, settings.grpc_address, settings.server_tls)
        await self._set_health(self._wanted_health())
        await server.start()
        self._grpc = server

    async def _start_rest(self) -> None:
        settings, core, files = self._settings, self.core, self._settings.server_tls
        parts = RestParts(
            core.edge_pipeline,
            core.local,
            core.snapshot,
            self.is_ready,
            core.registry,
            self._bounds,
            # With the data plane envoy, Envoy adds CORS headers to all responses.
            Cors(settings.allowed_origins) if self._plane is None else Cors(),
        )
        edge = RestEdge(parts)
        self._rest = Server(
            edge.serve,
            edge.reject,
            timeouts=Timeouts(write=settings.slow_reader_seconds),
            limits=self._limits,
            events=core.metrics.connections if self._plane is None else None,
        )
        if self._plane is not None:
            await self._rest.start_unix(self._plane.sockets.http)
            return
        context = http_server_context(files) if files else None
        host, port = split_address(settings.http_address)
        with _binding(settings.http_address):
            self.http_port = await self._rest.start(host, port, context)
        if context is not None:
            reload = reload_http_server(context, files, _TLS_POLL_SECONDS)
            self._keep(reload, "server TLS")

    async def _finish_envoy(self, plane: EnvoyPlane, grace: float) -> None:
        """Wait until open requests have ended, for the grace period at most."""
        exchanges, seen = self.core.exchanges, -1
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await plane.finish()
                # Each client is notified with a response; then no further request arrives.
                while seen != (seen := exchanges.opened):
                    await self.core.admission.idle.wait()
                    await asyncio.sleep(_LAST_CALLS_SECONDS / 2)
        await plane.close()

    @property
    def _bounds(self) -> Bounds:
        settings = self._settings
        return Bounds(
            settings.max_body_bytes,
            settings.default_timeout_seconds,
            settings.max_timeout_seconds,
            settings.content_bounds,
            settings.proxies,
        )

    @property
    def _limits(self) -> Limits:
        """Return the limits of the REST port's connections."""
        settings, proxies = self._settings, self._settings.proxies
        return Limits(
            settings.max_connections,
            settings.connections_per_address,
            network_of,
            proxies.trusts if proxies else None,
        )

    def _wanted_health(self) -> dict[str, bool]:
        snapshot = self.core.snapshot()
        models = {name: view.ready_endpoints > 0 for name, view in snapshot.models.items()}
        services: tuple[str, ...] = ("", INFERENCE, OIP)
        if self._settings.endpoint_picker_address:
            services, models = (*services, *READINESS), {LIVENESS: True} | models
        return dict.fromkeys(services, snapshot.is_ready) | models

    async def _set_health(self, wanted: Mapping[str, bool]) -> None:
        for service, serving in wanted.items():
            await self._health.set(service, _SERVING if serving else _NOT_SERVING)

    async def _follow_health(self) -> None:
        known: dict[str, bool] = {}
        while True:
            wanted = self._wanted_health()
            gone = dict.fromkeys(known.keys() - wanted.keys(), False)
            new = {name: is_up for name, is_up in wanted.items() if known.get(name) is not is_up}
            await self._set_health(gone | new)
            known = wanted
            await self.core.changed.wait()
            self.core.changed.clear()
