"""The Envoy data plane of one process.

The first process owns Envoy, the directory of the sockets, and the worker processes beside it.
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
from autoglm.gateway.envoy.ext_proc_edge import Picking
from autoglm.gateway.envoy.processes import Processes
from autoglm.gateway.envoy.program import Sidecar
from autoglm.gateway.request.request import Handler, Wire
from autoglm.gateway.settings import GatewaySettings


class EnvoyPlane:
    """The data plane of the first process. The gateway's own servers listen on `sockets`.

    `on_restart` is called with the number of a worker that exited unexpectedly.
    """

    def __init__(self, settings: GatewaySettings, on_restart: Callable[[int], object]) -> None:
        self._settings = settings
        # Found before anything else is created.
        self._program = "" if settings.envoy_directory else program.find()
        given = settings.envoy_directory
        self.sockets = Sockets(Path(given or tempfile.mkdtemp(prefix="autoglm-envoy-")))
        self.sockets.directory.mkdir(parents=True, exist_ok=True)
        self._others = Processes(settings, self.sockets, on_restart)
        self._picking: Picking | None = None
        self._envoy: program.Envoy | Sidecar | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the addresses that must be free; none with a sidecar, which may hold them."""
        settings = self._settings
        return (settings.grpc_address, settings.http_address) if self._program else ()

    async def start(self, relay: Handler, exchanges: Exchanges, bounds: Bounds) -> dict[str, int]:
        """Start Envoy; return the ports of both listeners by name. Raises EnvoyFailed."""
        is_alone = self._settings.processes == 1
        self._picking = Picking(self.sockets, relay, exchanges, bounds, is_alone)
        await self._picking.start()
        listen: dict[Wire, tuple[str, int]] = {
            "grpc": await _resolved(self._settings.grpc_address),
            "http": await _resolved(self._settings.http_address),
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
        """Wait until Envoy exits; return its exit code."""
        assert self._envoy is not None, "it has been started"
        return await self._envoy.wait()

    async def turn_away(self) -> None:
        """Make clients reconnect to other gateways; requests are still served."""
        if self._envoy is not None:
            await self._envoy.admin.fail_health_check()

    async def finish(self) -> None:
        """Accept no new connections, and let the other processes complete their requests.

        From then on this process alone serves new requests on open connections.
        """
        if self._envoy is not None:
            await self._envoy.admin.drain_listeners()
        await self._others.finish()

    async def close(self) -> None:
        """Stop Envoy and the other processes."""
        envoy, self._envoy = self._envoy, None
        if envoy is not None:
            await envoy.stop()
        await self._others.close()
        if self._picking is not None:
            await self._picking.close()
        if self._program:
            shutil.rmtree(self.sockets.directory, ignore_errors=True)


class HelperPlane:
    """The data plane of any other process: it only runs the picker."""

    addresses: tuple[str, ...] = ()

    def __init__(self, sockets: Sockets, grace: float) -> None:
        self.sockets = sockets
        self._grace = grace
        self._picking: Picking | None = None

    async def start(self, relay: Handler, exchanges: Exchanges, bounds: Bounds) -> dict[str, int]:
        """Start the picker; this process has no ports."""
        self._picking = Picking(self.sockets, relay, exchanges, bounds, is_alone=False)
        await self._picking.start()
        return {"grpc": 0, "http": 0}

    async def ended(self) -> int:
        """Wait forever: the kernel ends this process with the first one."""
        await asyncio.Event().wait()
        raise AssertionError("never set: the kernel ends this process with the first one")

    async def turn_away(self) -> None:
        """Do nothing: the first process's Envoy does it."""

    async def finish(self) -> None:
        """Accept no new requests from Envoy, which uses other processes then."""
        if self._picking is not None:
            await self._picking.stop_picking(self._grace)

    async def close(self) -> None:
        """Stop the picker."""
        if self._picking is not None:
            await self._picking.close()


Plane = EnvoyPlane | HelperPlane


def plane_of(settings: GatewaySettings, sockets: Sockets | None, restarts: Counter) -> Plane | None:
    """Return the Envoy data plane of the settings; None for the embedded one."""
    if sockets is not None:
        return HelperPlane(sockets, settings.shutdown_grace_seconds)
    if settings.data_plane == "envoy":
        return EnvoyPlane(settings, lambda number: restarts.labels(str(number)).inc())
    return None


async def _resolved(address: str) -> tuple[str, int]:
    """Envoy listens on IP addresses only. Raises OSError."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(found[0][4][0]), port
