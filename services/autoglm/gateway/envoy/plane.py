"""The Envoy data plane: owns Envoy, the picker, and the directory of their sockets."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from pathlib import Path

import grpc

from autoglm.common.addresses import split_address
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import program
from autoglm.gateway.envoy.access_log import AccessLogService
from autoglm.gateway.envoy.access_log_pb2_grpc import add_AccessLogServiceServicer_to_server
from autoglm.gateway.envoy.check_edge import CheckEdge
from autoglm.gateway.envoy.config import Sockets, bootstrap
from autoglm.gateway.envoy.exchange import Exchanges
from autoglm.gateway.envoy.program import Sidecar
from autoglm.gateway.request.request import Handler, Wire
from autoglm.gateway.settings import GatewaySettings
from autoglm.http1.rules import Limits
from autoglm.http1.server import Server

# Each request that waits has a connection to the picker; admission bounds them.
_UNLIMITED = 2**31


class EnvoyPlane:
    """Envoy and its picker. The gateway's own servers listen on `sockets`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        # Found before anything else is created.
        self._program = "" if settings.envoy_directory else program.find()
        given = settings.envoy_directory
        self.sockets = Sockets(Path(given or tempfile.mkdtemp(prefix="autoglm-envoy-")))
        self.sockets.directory.mkdir(parents=True, exist_ok=True)
        self._picker: CheckEdge | None = None
        self._picker_server: Server | None = None
        self._access_log: grpc.aio.Server | None = None
        self._envoy: program.Envoy | Sidecar | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the addresses that must be free; none with a sidecar, which may hold them."""
        settings = self._settings
        return (settings.grpc_address, settings.http_address) if self._program else ()

    async def start(self, relay: Handler, exchanges: Exchanges, bounds: Bounds) -> dict[str, int]:
        """Start Envoy; return the ports of both listeners by name. Raises EnvoyFailed."""
        settings, sockets = self._settings, self.sockets
        self._picker = CheckEdge(relay, exchanges, bounds)
        self._picker_server = Server(
            self._picker.serve, self._picker.reject, limits=Limits(_UNLIMITED)
        )
        await self._picker_server.start_unix(sockets.picker)
        self._access_log = grpc.aio.server()
        add_AccessLogServiceServicer_to_server(AccessLogService(exchanges), self._access_log)
        self._access_log.add_insecure_port(f"unix:{sockets.access_log}")
        await self._access_log.start()
        listen: dict[Wire, tuple[str, int]] = {
            "grpc": await _resolved(settings.grpc_address),
            "http": await _resolved(settings.http_address),
        }
        config = bootstrap(settings, sockets, listen)
        if self._program:
            self._envoy = await program.Envoy.start(
                self._program, config, sockets, settings.envoy_concurrency
            )
        else:
            self._envoy = await Sidecar.start(config, sockets)
        return await self._envoy.admin.ports()

    async def ended(self) -> int:
        """Wait until Envoy exits; return its exit code."""
        assert self._envoy is not None, "it has been started"
        return await self._envoy.wait()

    async def turn_away(self) -> None:
        """Make clients reconnect to other gateways; requests are still served."""
        if self._envoy is not None:
            await self._envoy.admin.fail_health_check()

    async def finish(self) -> None:
        """Accept no new connections; requests on open ones are still served."""
        if self._envoy is not None:
            await self._envoy.admin.drain_listeners()

    async def close(self) -> None:
        """Stop Envoy and the picker."""
        envoy, self._envoy = self._envoy, None
        if envoy is not None:
            await envoy.stop()
        if self._picker is not None:
            await self._picker.close()
        if self._picker_server is not None:
            await self._picker_server.stop(0)
        if self._access_log is not None:
            await self._access_log.stop(None)
        if self._program:
            shutil.rmtree(self.sockets.directory, ignore_errors=True)


async def _resolved(address: str) -> tuple[str, int]:
    """Resolve the host, as Envoy listens on IP addresses only. Raises OSError."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0]), port
