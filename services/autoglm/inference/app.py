"""The inference pod's process: starts the engine and its servers, drains, ends. Called by the CLI.

Order: take the addresses (a taken one must be known before a model is loaded), serve probes, load
the engine, serve. A signal makes the pod unready at once; requests that still come in the drain
delay are served, those under way have the grace to finish, a second signal ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from autoglm.common import errors, rpc
from autoglm.common.admin_server import AdminServer
from autoglm.common.process import (
    ExitCode,
    Shutdown,
    collect_garbage,
    raise_open_file_limit,
    tune_allocator,
)
from autoglm.common.reflection import add_reflection
from autoglm.common.telemetry import set_up_logs, set_up_traces
from autoglm.common.tls import http_server_context, reload_http_server
from autoglm.inference import diagnosis
from autoglm.inference.diagnosis import Diagnosis
from autoglm.inference.engine import Engine
from autoglm.inference.gather import Pacer
from autoglm.inference.http.bounded_http import BoundedHttp
from autoglm.inference.http.observer import HttpObserver
from autoglm.inference.http.server import HttpServer, bind
from autoglm.inference.kv.block_naming import NamedHttp
from autoglm.inference.modelscope.api import ModelScopeError
from autoglm.inference.modelscope.start import with_paths
from autoglm.inference.oip.rest import with_oip
from autoglm.inference.oip.servicer import OipServicer
from autoglm.inference.pod import Phase, Pod
from autoglm.inference.servicers.inference import InferenceServicer
from autoglm.inference.servicers.interceptor import RequestInterceptor
from autoglm.inference.servicers.worker import WorkerServicer
from autoglm.inference.settings import InferenceSettings
from autoglm.inference.startup import Startup
from autoglm.v1 import inference_pb2_grpc, open_inference_pb2_grpc, worker_pb2_grpc

_INFERENCE_SERVICES = ("autoglm.v1.Inference", "inference.GRPCInferenceService")
_REFLECTED = (*_INFERENCE_SERVICES, "autoglm.v1.Worker", "grpc.health.v1.Health")
_TLS_POLL_SECONDS = 5.0
# For streams that only watch and end when the server ends them.
_LAST_CALLS_SECONDS = 0.5
# For a start that stalled to be diagnosed, and its process to end.
_STALL_MARGIN_SECONDS = 30.0
_log = logging.getLogger("autoglm.inference")
T = TypeVar("T")


class CannotStart(Exception):
    """Carries the diagnosis to the one place that publishes it."""

    def __init__(self, found: Diagnosis) -> None:
        super().__init__(str(found))
        self.found = found


def run(settings: InferenceSettings) -> int:
    """Serve until a signal; return the exit code of the process."""
    raise_open_file_limit()
    tune_allocator()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings))


async def serve(settings: InferenceSettings) -> int:
    """Do the same on a running loop."""
    set_up_logs(settings.log_level, settings.log_format)
    # uvicorn logs each start and end of a server; the pod logs both itself.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    shutdown = Shutdown()
    shutdown.install()
    server = PodServer(settings)
    try:
        set_up_traces("autoglm-inference", settings.traces, settings.trace_sample_ratio)
        await _before(shutdown, server)
        server.collect_garbage()
        cause = await server.until_end(shutdown)
    except CannotStart as error:
        diagnosis.publish(error.found, settings)
        return error.found.exit_code
    except ValueError as error:
        found = Diagnosis("BadSettings", str(error), ExitCode.BAD_SETTINGS)
        diagnosis.publish(found, settings)
        return found.exit_code
    finally:
        await server.close()
    if cause is None:
        return 0
    found = diagnosis.engine_dead(cause)
    diagnosis.publish(found, settings)
    return found.exit_code


async def _before(shutdown: Shutdown, server: PodServer) -> None:
    """Start; a signal that comes first, or a start that stalls, ends the process."""
    starting = asyncio.create_task(server.start())
    signalled = asyncio.create_task(shutdown.wait())
    stalled = asyncio.create_task(server.stalled())
    await asyncio.wait((starting, signalled, stalled), return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    stalled.cancel()
    if starting.done():
        return starting.result()
    code = 0
    if signalled.done():
        _log.info("ended by a signal before the engine was ready")
    else:
        found = stalled.result()
        diagnosis.publish(found, server.settings)
        code = found.exit_code
    # The engine loads in a thread that cannot be stopped, and no client waits for a response.
    logging.shutdown()
    os._exit(code)


class PodServer:
    """A pod in this process. After `start`, the ports say where it listens."""

    def __init__(self, settings: InferenceSettings) -> None:
        self.settings = settings
        self._startup = Startup(time.monotonic())
        self.pod = Pod(lambda: self._startup.text(time.monotonic()))
        self._health = health.aio.HealthServicer()
        self._grpc: grpc.aio.Server | None = None
        self._http: HttpServer | None = None
        self._http_socket: socket.socket | None = None
        self._admin: AdminServer | None = None
        self._engine: Engine | None = None
        self._background: list[asyncio.Task[None]] = []
        self.grpc_port = self.http_port = self.metrics_port = 0

    async def start(self) -> None:
        """Raises CannotStart with the reason."""
        self._take_addresses()
        await self._publish_health()
        assert self._grpc is not None
        await self._grpc.start()
        self._engine = await self._started_engine()
        engine = self._engine
        files = self.settings.server_tls
        context = http_server_context(files) if files else None
        most_bytes = self.settings.max_body_bytes
        app = with_oip(engine, engine.http_app(), lambda: self.pod.is_ready, most_bytes)
        if engine.kv_feed() is not None:
            app = NamedHttp(app, most_bytes)
        app = BoundedHttp(app, self.settings.content_bounds, most_bytes)
        self._http = HttpServer(HttpObserver(app, self.pod), context)
        assert self._http_socket is not None
        await self._http.start(self._http_socket)
        if context is not None:
            reload = reload_http_server(context, files, _TLS_POLL_SECONDS)
            self._background.append(asyncio.create_task(reload, name="server TLS"))
        self.pod.ready(self._engine)
        await self._publish_health()
        ports = {"grpc": self.grpc_port, "http": self.http_port, "metrics": self.metrics_port}
        _log.info("ready", extra={"fields": ports | {"models": self.pod.model_names}})

    def collect_garbage(self) -> None:
        """Collect garbage when few requests run; exempt what is alive now."""
        garbage = collect_garbage(lambda: self.pod.in_flight)
        self._background.append(asyncio.create_task(garbage, name="garbage"))

    async def until_end(self, shutdown: Shutdown) -> str | None:
        """Serve until a signal and drain, or until the engine dies: then return the cause."""
        signalled = asyncio.create_task(shutdown.wait())
        death = asyncio.create_task(self.pod.engine().wait_dead())
        await asyncio.wait((signalled, death), return_when=asyncio.FIRST_COMPLETED)
        if not death.done():
            drained = asyncio.create_task(self.drain())
            await asyncio.wait((drained, death), return_when=asyncio.FIRST_COMPLETED)
            death.cancel()
            if drained.done():
                drained.result()
                return None
            drained.cancel()
            # Ctrl-C reaches the engine's processes too; where nothing ran, nothing was lost.
            if self.pod.in_flight == 0:
                return None
        signalled.cancel()
        self.pod.die(death.result())
        await self._publish_health()
        return death.result()

    async def drain(self) -> None:
        """Report NOT_SERVING, wait for gateways to notice, and finish open requests."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.shutdown_grace_seconds
        self.pod.drain()
        await self._publish_health()
        _log.info("draining", extra={"fields": {"in_flight": self.pod.in_flight}})
        await asyncio.sleep(min(self.settings.drain_delay_seconds, max(0.0, end - loop.time())))
        self.pod.close()
        try:
            async with asyncio.timeout_at(end):
                await self.pod.idle()
        except TimeoutError:
            _log.warning("grace is over", extra={"fields": {"cut_off": self.pod.in_flight}})

    async def close(self) -> None:
        """Stop everything; what still runs is ended."""
        self.pod.close()
        async with asyncio.TaskGroup() as stops:
            if self._http is not None:
                stops.create_task(self._http.stop(_LAST_CALLS_SECONDS))
            if self._grpc is not None:
                await (await self.pod.gate.stop(self._grpc, _LAST_CALLS_SECONDS))
        if self._http_socket is not None:
            self._http_socket.close()
        if self._engine is not None:
            await self._engine.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._admin is not None:
            await asyncio.to_thread(self._admin.close)

    async def stalled(self) -> Diagnosis:
        """Return when the start has made no progress for too long."""
        limit = self.settings.startup_stall_seconds
        while True:
            now = time.monotonic()
            left = limit - self._startup.idle_seconds(now)
            if left <= 0:
                return diagnosis.stalled(self._startup.text(now), limit)
            await asyncio.sleep(left)

    def is_ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return readiness and details; also called from the admin port's threads."""
        details: dict[str, Any] = {"phase": self.pod.phase, "in_flight": self.pod.in_flight}
        if self.pod.phase is Phase.LOADING:
            details |= {"start": self._startup.view(time.monotonic())}
        return self.pod.is_ready, details

    def is_stalled(self) -> bool:
        """Return whether the start stalled and the process has not ended itself for it; then the
        kubelet does. Called from the admin port's threads."""
        idle = self._startup.idle_seconds(time.monotonic())
        limit = self.settings.startup_stall_seconds + _STALL_MARGIN_SECONDS
        return self.pod.phase is Phase.LOADING and idle > limit

    async def _publish_health(self) -> None:
        """Publish the pod's phase as health status, overall and by service and model."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if self.pod.is_ready else states.NOT_SERVING
        for name in ("", *_INFERENCE_SERVICES, *self.pod.model_names):
            await self._health.set(name, state)

    def _take_addresses(self) -> None:
        settings, pace = self.settings, Pacer(self.settings.gather_milliseconds)
        server = self._grpc = rpc.server(
            [RequestInterceptor(self.pod, settings.content_bounds)],
            settings.max_body_bytes,
            in_one_piece=True,
        )
        inference_pb2_grpc.add_InferenceServicer_to_server(
            InferenceServicer(self.pod, pace), server
        )
        worker_pb2_grpc.add_WorkerServicer_to_server(WorkerServicer(self.pod), server)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            OipServicer(self.pod.engine, lambda: self.pod.is_ready, pace), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_reflection(_REFLECTED, server)
        self.grpc_port = _taken(
            "grpc-address",
            settings.grpc_address,
            lambda address: rpc.bind(server, address, settings.server_tls),
        )
        self._http_socket = _taken("http-address", settings.http_address, bind)
        self.http_port = self.pod.http_port = self._http_socket.getsockname()[1]
        self._admin = _taken(
            "metrics-address",
            settings.metrics_address,
            lambda address: AdminServer(address, self.is_ready, is_stalled=self.is_stalled),
        )
        self.metrics_port = self._admin.port
        self._background.append(asyncio.create_task(self._admin.lag.beat(), name="loop lag"))

    async def _started_engine(self) -> Engine:
        settings = self.settings
        if problem := diagnosis.model_path_problem(settings):
            raise CannotStart(problem)
        # Engines are imported by name, so that each needs only its own packages.
        if settings.engine == "echo":
            simulator = import_module("autoglm.simulator")
            try:
                simulated: Engine = await simulator.start(settings.echo_settings())
            except errors.AutoGLMError as error:
                raise CannotStart(diagnosis.diagnose(str(error), settings)) from error
            return simulated
        try:
            settings = await with_paths(settings, self._startup)
        except ModelScopeError as error:
            found = Diagnosis(error.exit_code.reason, str(error), error.exit_code)
            raise CannotStart(found) from error
        vllm = import_module("autoglm.inference.vllm")
        try:
            engine: Engine = await vllm.start(settings.engine_options(), self._startup)
        except Exception as error:
            _log.debug("the engine did not start", exc_info=error)
            found = diagnosis.diagnose(vllm.root_cause(error), settings)
            if diagnosis.may_be_the_hub(found, settings):
                model, revision = settings.model_path, settings.revision or None
                cause = await asyncio.to_thread(vllm.hub_problem, model, revision)
                found = diagnosis.diagnose(cause, settings) if cause else found
            raise CannotStart(found) from error
        return engine


def _taken(flag: str, address: str, take: Callable[[str], T]) -> T:
    try:
        return take(address)
    except OSError as error:
        raise CannotStart(diagnosis.address_in_use(error, flag, address)) from error
