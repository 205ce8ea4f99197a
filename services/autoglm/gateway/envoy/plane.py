"""The Envoy plane of one gateway: picker, Envoy, the directory of their sockets. Made by `app`."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from pathlib import Path

import grpc

from autoglm.common.addresses import split_address
from autoglm.gateway.call import Handler, Wire
from autoglm.gateway.envoy import access_log_pb2_grpc, ext_proc_pb2_grpc, program
from autoglm.gateway.envoy.bootstrap import WINDOW_BYTES, bootstrap
from autoglm.gateway.envoy.exchange import Exchanges
from autoglm.gateway.envoy.ext_proc_edge import Ends, Picker
from autoglm.gateway.envoy.names import Sockets
from autoglm.gateway.envoy.parts import Json
from autoglm.gateway.envoy.sidecar import Sidecar
from autoglm.gateway.rest_request import Bounds
from autoglm.gateway.settings import GatewaySettings

# What Envoy shows of a body that is too long, and what it puts around it.
_ROOM_BYTES = 2 * WINDOW_BYTES


class EnvoyPlane:
    """`sockets` are where the gateway's own servers have to listen."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        # Nothing is made before the program is there.
        self._program = "" if settings.envoy_directory else program.find()
        given = settings.envoy_directory
        self.sockets = Sockets(Path(given or tempfile.mkdtemp(prefix="autoglm-envoy-")))
        self.sockets.directory.mkdir(parents=True, exist_ok=True)
        self._picker: Picker | None = None
        self._server: grpc.aio.Server | None = None
        self._envoy: program.Envoy | Sidecar | None = None

    async def start(self, relay: Handler, exchanges: Exchanges, bounds: Bounds) -> dict[str, int]:
        """The ports of both listeners, by name. Raises EnvoyFailed."""
        self._picker = Picker(relay, exchanges, bounds)
        options = (("grpc.max_receive_message_length", bounds.max_body_bytes + _ROOM_BYTES),)
        server = grpc.aio.server(options=options)
        ext_proc_pb2_grpc.add_ExternalProcessorServicer_to_server(self._picker, server)
        access_log_pb2_grpc.add_AccessLogServiceServicer_to_server(Ends(exchanges), server)
        server.add_insecure_port(f"unix:{self.sockets.picker}")
        await server.start()
        self._server = server
        listen: dict[Wire, tuple[str, int]] = {
            "grpc": await _looked_up(self._settings.grpc_address),
            "http": await _looked_up(self._settings.http_address),
        }
        config = bootstrap(self._settings, self.sockets, listen)
        self._envoy = await self._started(config)
        return await self._envoy.admin.ports()

    async def _started(self, config: Json) -> program.Envoy | Sidecar:
        if not self._program:
            return await Sidecar.start(config, self.sockets)
        return await program.Envoy.start(
            self._program, config, self.sockets, self._settings.envoy_concurrency
        )

    async def ended(self) -> int:
        """Until Envoy ends by itself; its exit code."""
        assert self._envoy is not None, "it has been started"
        return await self._envoy.wait()

    async def turn_away(self) -> None:
        """Clients are asked to go elsewhere; all that comes is still served."""
        if self._envoy is not None:
            await self._envoy.admin.turn_away()

    async def stop_listening(self) -> None:
        if self._envoy is not None:
            await self._envoy.admin.stop_listening()

    async def close(self) -> None:
        envoy, self._envoy = self._envoy, None
        if envoy is not None:
            await envoy.stop()
        if self._picker is not None:
            await self._picker.close()
        if self._server is not None:
            await self._server.stop(None)
        if self._program:
            shutil.rmtree(self.sockets.directory, ignore_errors=True)


async def _looked_up(address: str) -> tuple[str, int]:
    """Envoy listens on IP addresses only. Raises OSError."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0]), port
