"""Worker processes beside the first one: starts, restarts and stops them.

Each is a gateway without an Envoy and without ports (`gateway.process`); Envoy connects to it over
sockets of its own, and ejects it while it does not respond.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from autoglm.gateway.envoy.config.names import Sockets
from autoglm.gateway.envoy.program import LAUNCH
from autoglm.gateway.settings import GatewaySettings

_CHILD = "autoglm.gateway.process"
_POLL_SECONDS = 0.1
_PROBE_SECONDS = 1.0
# As long as kubelet's liveness probe in the chart.
HUNG_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
# A worker that ran for so long did not fail at start, so the back-off is reset.
_SETTLED_SECONDS = 30.0
_log = logging.getLogger("autoglm.gateway")


class Processes:
    """All worker processes but the first, which is this one.

    `on_restart` is called with the number of a worker that exited unexpectedly.
    """

    def __init__(
        self, settings: GatewaySettings, sockets: Sockets, on_restart: Callable[[int], object]
    ) -> None:
        self._on_restart = on_restart
        # Only the first process has ports and delays its drain.
        own = {"endpoint_picker_address": "", "drain_delay_seconds": 0.0}
        self._settings = settings.model_copy(update=own).model_dump_json().encode()
        self._sockets = [sockets.of(number) for number in range(1, settings.processes)]
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the running workers."""
        return tuple(child.pid for child in self._running.values())

    def start(self) -> None:
        """Start the workers without waiting: Envoy uses each one once it listens."""
        self._keepers = [asyncio.create_task(self._keep(sockets)) for sockets in self._sockets]

    async def finish(self) -> None:
        """Let each worker complete its requests and exit."""
        await self._end(signal.SIGTERM)

    async def close(self) -> None:
        """Kill the remaining workers."""
        await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        for child in self._running.values():
            child.send_signal(how)
        await asyncio.gather(*(_ended(child) for child in self._running.values()))

    async def _keep(self, sockets: Sockets) -> None:
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE_SECONDS
        while True:
            begun = loop.time()
            self._running[sockets.number] = child = self._spawn(sockets)
            code = await _ended_or_hung(child, sockets)
            if loop.time() - begun > _SETTLED_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            fields = {"process": sockets.number, "code": code, "restart_in_seconds": pause}
            _log.error("worker exited unexpectedly", extra={"fields": fields})
            self._on_restart(sockets.number)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _spawn(self, sockets: Sockets) -> subprocess.Popen[bytes]:
        command = (
            *(*LAUNCH, sys.executable, "-m", _CHILD),
            *(str(sockets.number), str(sockets.directory)),
        )
        # As for Envoy: gRPC's threads do not survive a fork, and Ctrl-C is for the first process.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert child.stdin is not None
        # `_keep` notices if it has exited. A few kilobytes never block.
        with suppress(BrokenPipeError), child.stdin:
            child.stdin.write(self._settings)
        return child


async def _ended_or_hung(child: subprocess.Popen[bytes], sockets: Sockets) -> int:
    """Return its exit code once it has exited; kills a worker that does not respond."""
    hung, ended = asyncio.create_task(_hung(sockets)), asyncio.create_task(_ended(child))
    try:
        await asyncio.wait((hung, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            fields = {"process": sockets.number, "seconds": HUNG_SECONDS}
            _log.error("worker does not respond, killing it", extra={"fields": fields})
            child.kill()
        return await ended
    finally:
        hung.cancel()
        ended.cancel()


async def _hung(sockets: Sockets) -> None:
    """Return once a health check was accepted but got no response in time."""
    patience = aiohttp.ClientTimeout(total=HUNG_SECONDS)
    connector = aiohttp.UnixConnector(sockets.http)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            try:
                async with session.get("http://gateway/health"):
                    pass
            except TimeoutError:
                return
            except aiohttp.ClientError:
                # It does not listen yet, or has exited.
                continue


async def _ended(child: subprocess.Popen[bytes]) -> int:
    """Poll for its exit code; waiting threads would block the loop's thread pool."""
    while (code := child.poll()) is None:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)
    return code
