"""What one process has of the Envoy plane. Made by `app`.

The first process owns Envoy, the directory of the sockets, and the processes that decide beside it.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from prometheus_client import Counter

from autoglm.common.addresses import split_address
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import program
from autoglm.gateway.envoy.config.bootstrap import bootstrap
from autoglm.gateway.envoy.config.names import Sockets
from autoglm.gateway.envoy.config.parts import Json
from autoglm.gateway.envoy.exchange import Exchanges
from autoglm.gateway.envoy.picking import Picking
from autoglm.gateway.envoy.processes import Processes
from autoglm.gateway.envoy.sidecar import Sidecar
from autoglm.gateway.request.request import Handler, Wire
from autoglm.gateway.settings import GatewaySettings


class EnvoyPlane:
    """`sockets` are where the gateway's own servers have to listen. `on_restart` hears the number
    of a process that has ended by itself.
    """

    def __init__(self, settings: GatewaySettings, on_restart: Callable[[int], object]) -> None:
        self._settings = settings
        # Nothing is made before the program is there.
        self._program = "" if settings.envoy_directory else program.find()
        given = settings.envoy_directory
        self.sockets = Sockets(Path(given or tempfile.mkdtemp(prefix="autoglm-envoy-")))
        self.sockets.directory.mkdir(parents=True, exist_ok=True)
        self._others = Processes(settings, self.sockets, on_restart)
        self._picking: Picking | None = None
        self._envoy: program.Envoy | Sidecar | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that have to be free; a sidecar that an earlier gateway left may hold them."""
        settings = self._settings
        return (settings.grpc_address, settings.http_address) if self._program else ()

    async def start(self, relay: Handler, exchanges: Exchanges, bounds: Bounds) -> dict[str, int]:
        """The ports of both listeners, by name. Raises EnvoyFailed."""
        is_alone = self._settings.processes == 1
        self._picking = Picking(self.sockets, relay, exchanges, bounds, is_alone)
        await self._picking.start()
        listen: dict[Wire, tuple[str, int]] = {
            "grpc": await _looked_up(self._settings.grpc_address),
            "http": await _looked_up(self._settings.http_address),
        }
        config = bootstrap(self._settings, self.sockets, listen)
        self._envoy = await self._started(config)
        self._others.start()
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

    async def finish(self) -> None:
        """No new connections; and what the other processes have begun, they end.

        From then on this process alone decides what still comes on connections that there are.
        """
        if self._envoy is not None:
            await self._envoy.admin.stop_listening()
        await self._others.finish()

    async def close(self) -> None:
        envoy, self._envoy = self._envoy, None
        if envoy is not None:
            await envoy.stop()
        await self._others.close()
        if self._picking is not None:
            await self._picking.close()
        if self._program:
            shutil.rmtree(self.sockets.directory, ignore_errors=True)


class HelperPlane:
    """That of any other process: it answers Envoy's questions."""

    addresses: tuple[str, ...] = ()

    def __init__(self, sockets: Sockets, grace: float) -> None:
        self.sockets = sockets
        self._grace = grace
        self._picking: Picking | None = None

    async def start(self, relay: Handler, exchanges: Exchanges, bounds: Bounds) -> dict[str, int]:
        """No port is its own."""
        self._picking = Picking(self.sockets, relay, exchanges, bounds, is_alone=False)
        await self._picking.start()
        return {"grpc": 0, "http": 0}

    async def ended(self) -> int:
        await asyncio.Event().wait()
        raise AssertionError("never set: the kernel ends this process with the first one")

    async def turn_away(self) -> None:
        """Clients hear it from the first process's Envoy."""

    async def finish(self) -> None:
        """Envoy asks others from now on."""
        if self._picking is not None:
            await self._picking.ask_others(self._grace)

    async def close(self) -> None:
        if self._picking is not None:
            await self._picking.close()


Plane = EnvoyPlane | HelperPlane


def plane_of(settings: GatewaySettings, sockets: Sockets | None, restarts: Counter) -> Plane | None:
    """None where the gateway's own process moves the bytes."""
    if sockets is not None:
        return HelperPlane(sockets, settings.shutdown_grace_seconds)
    if settings.data_plane == "envoy":
        return EnvoyPlane(settings, lambda number: restarts.labels(str(number)).inc())
    return None


async def _looked_up(address: str) -> tuple[str, int]:
    """Envoy listens on IP addresses only. Raises OSError."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0]), port
