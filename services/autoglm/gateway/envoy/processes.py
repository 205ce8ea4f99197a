"""More processes that decide for the same Envoy: started, kept running, told to finish.

Each is a gateway without an Envoy and without ports (`gateway.process`); Envoy asks it over sockets
of its own, and passes it over while it does not answer. Called by `plane`.
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
_LOOK_SECONDS = 0.1
_ASK_SECONDS = 1.0
# As long as kubelet would bear with it, by our charts.
HUNG_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
# One that has run for so long did not fail at its start.
_SETTLED_SECONDS = 30.0
_log = logging.getLogger("autoglm.gateway")


class Processes:
    """All but the first, which is the caller's. `on_restart` hears the number of one that has ended
    by itself.
    """

    def __init__(
        self, settings: GatewaySettings, sockets: Sockets, on_restart: Callable[[int], object]
    ) -> None:
        self._on_restart = on_restart
        # The ports are the first one's, and what is told to clients.
        own = {"endpoint_picker_address": "", "drain_delay_seconds": 0.0}
        self._settings = settings.model_copy(update=own).model_dump_json().encode()
        self._sockets = [sockets.of(number) for number in range(1, settings.processes)]
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(child.pid for child in self._running.values())

    def start(self) -> None:
        """Envoy asks each from when it listens; nobody waits for that."""
        self._keepers = [asyncio.create_task(self._keep(sockets)) for sockets in self._sockets]

    async def finish(self) -> None:
        """Each answers what it was asked, hears of the end of its calls, and ends."""
        await self._end(signal.SIGTERM)

    async def close(self) -> None:
        """Ends those that are left, at once."""
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
            fields = {"process": sockets.number, "code": code, "again_in_seconds": pause}
            _log.error("a process has ended by itself", extra={"fields": fields})
            self._on_restart(sockets.number)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _spawn(self, sockets: Sockets) -> subprocess.Popen[bytes]:
        command = (
            *(*LAUNCH, sys.executable, "-m", _CHILD),
            *(str(sockets.number), str(sockets.directory)),
        )
        # As Envoy is: no fork of gRPC's threads, and Ctrl-C is for the first one.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert child.stdin is not None
        # Its keeper sees that it has ended. There are a few kilobytes, which never block.
        with suppress(BrokenPipeError), child.stdin:
            child.stdin.write(self._settings)
        return child


async def _ended_or_hung(child: subprocess.Popen[bytes], sockets: Sockets) -> int:
    """Its exit code, once it has ended; one that answers nobody is ended."""
    hung, ended = asyncio.create_task(_hung(sockets)), asyncio.create_task(_ended(child))
    try:
        await asyncio.wait((hung, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            fields = {"process": sockets.number, "seconds": HUNG_SECONDS}
            _log.error("a process answers nobody and is ended", extra={"fields": fields})
            child.kill()
        return await ended
    finally:
        hung.cancel()
        ended.cancel()


async def _hung(sockets: Sockets) -> None:
    """Returns where it has accepted a question and not answered it for long."""
    patience = aiohttp.ClientTimeout(total=HUNG_SECONDS)
    connector = aiohttp.UnixConnector(sockets.http)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:
        while True:
            await asyncio.sleep(_ASK_SECONDS)
            try:
                async with session.get("http://gateway/health"):
                    pass
            except TimeoutError:
                return
            except aiohttp.ClientError:
                # It does not listen yet, or has ended.
                continue


async def _ended(child: subprocess.Popen[bytes]) -> int:
    """Its exit code. Threads that wait would be a fixed number for everybody."""
    while (code := child.poll()) is None:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)
    return code
