"""Runs Envoy: as a child process, or as a sidecar that another program started."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import aiohttp

from autoglm.common.packages import install_command
from autoglm.gateway.envoy.config import Sockets

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02
_END_SECONDS = 5.0
# The kernel kills the child when its parent exits (prctl(2), PR_SET_PDEATHSIG); Linux only.
_DIE_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""
_LAUNCH = (sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT)
# The format of the gateway's own log lines.
_LINE = '{"level":"%l","logger":"envoy.%n","message":"%j"}'
_log = logging.getLogger("autoglm.gateway")
READY = "/ready"
# Pulling its image may take that long.
_SIDECAR_START_SECONDS = 60.0
_SIDECAR_POLL_SECONDS = 0.05


class EnvoyMissing(Exception):
    """There is no Envoy to run; the text gives the remedy."""


class EnvoyFailed(Exception):
    """Envoy did not start, or exited unexpectedly."""


def find() -> str:
    """Return the path of Envoy: on the PATH, or the package's. Raises EnvoyMissing."""
    if found := shutil.which("envoy"):
        return found
    package = importlib.util.find_spec("envoy")
    for directory in (package and package.submodule_search_locations) or ():
        if (program := Path(directory) / "_bin" / "envoy").exists():
            return str(program)
    raise EnvoyMissing(
        "--data-plane envoy needs Envoy, and there is no `envoy` on the PATH: "
        f"{install_command('envoy')}, or install Envoy 1.40 or later"
    )


class Envoy:
    """An Envoy that runs as a child process. `socket` is the path of its admin socket."""

    def __init__(self, child: subprocess.Popen[bytes], socket: str) -> None:
        self._child = child
        self._ended = asyncio.ensure_future(asyncio.to_thread(child.wait))
        self.admin = Admin(socket)

    @classmethod
    async def start(cls, program: str, config: str, sockets: Sockets, concurrency: int) -> Envoy:
        """Start Envoy and wait until it listens. Raises EnvoyFailed."""
        sockets.config.write_text(config, "utf-8")
        command = (
            *_LAUNCH,
            program,
            *("-c", str(sockets.config), "--concurrency", str(concurrency)),
            *("--disable-hot-restart", "--drain-strategy", "immediate"),
            *("--log-level", "warning", "--component-log-level", "main:error"),
            *("--log-format", _LINE),
        )
        # Not asyncio's subprocess, which forks: gRPC's threads do not survive that. In a session of
        # its own, so that Ctrl-C reaches only the gateway, which drains first.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: ASYNC220
        envoy = cls(child, sockets.admin)
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await envoy.admin.responds(READY):
                    if envoy._ended.done():
                        raise EnvoyFailed(
                            f"Envoy exited with code {envoy._ended.result()} before it listened; "
                            "its log lines above give the reason"
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            await envoy.stop()
            raise
        return envoy

    async def wait(self) -> int:
        """Wait until it exits; return its exit code."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Terminate Envoy, and kill it after a timeout."""
        await self.admin.close()
        if not self._ended.done():
            self._child.terminate()
            await asyncio.wait((self._ended,), timeout=_END_SECONDS)
        if not self._ended.done():
            self._child.kill()
        await self._ended


class Admin:
    """A client of the admin API at a Unix socket, whose path is `path`."""

    def __init__(self, path: str) -> None:
        self._session = aiohttp.ClientSession("http://envoy", connector=aiohttp.UnixConnector(path))

    async def ports(self) -> dict[str, int]:
        """Return the port of each listener, by name."""
        async with self._session.get("/listeners?format=json") as page:
            listeners = (await page.json(content_type=None))["listener_statuses"]
        return {
            one["name"]: one["local_address"]["socket_address"]["port_value"] for one in listeners
        }

    async def responds(self, path: str = "/server_info") -> bool:
        """Return whether Envoy responds with 200; with READY, whether its listeners are open."""
        try:
            async with self._session.get(path) as page:
                return page.status == 200
        except aiohttp.ClientError:
            return False

    async def fail_health_check(self) -> None:
        """Start draining: responses make clients close their connections and reconnect."""
        await self._post("/healthcheck/fail")

    async def drain_listeners(self) -> None:
        """Accept no new connections; open ones continue."""
        await self._post("/drain_listeners")

    async def quit(self) -> None:
        """End Envoy."""
        await self._post("/quitquitquit")

    async def close(self) -> None:
        """Close the client's connections."""
        await self._session.close()

    async def _post(self, path: str) -> None:
        async with self._session.post(path) as page:
            await page.read()


class Sidecar:
    """An Envoy that another program runs, such as a container; the interface is that of `Envoy`.

    It starts once its configuration is in the shared directory, and exits with the gateway; the
    container is restarted then and waits for the next configuration.
    """

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self.admin = Admin(sockets.admin)

    @classmethod
    async def start(cls, config: str, sockets: Sockets) -> Sidecar:
        """Write the configuration and wait until Envoy listens. Raises EnvoyFailed."""
        sidecar = cls(sockets)
        try:
            async with asyncio.timeout(_SIDECAR_START_SECONDS):
                # End an Envoy first that still runs with the configuration of a killed gateway.
                sockets.config.unlink(missing_ok=True)
                while await sidecar.admin.responds():
                    await sidecar.admin.quit()
                    await asyncio.sleep(_SIDECAR_POLL_SECONDS)
                unfinished = sockets.config.with_suffix(".new")
                unfinished.write_text(config, "utf-8")
                unfinished.replace(sockets.config)
                # Envoy has no other signal of its readiness.
                while not await sidecar.admin.responds(READY):  # noqa: ASYNC110
                    await asyncio.sleep(_SIDECAR_POLL_SECONDS)
        except TimeoutError as error:
            await sidecar.admin.close()
            raise EnvoyFailed(
                f"no Envoy responded at {sockets.admin} for {_SIDECAR_START_SECONDS:.0f} s; "
                f"check that one runs that was started with -c {sockets.config}"
            ) from error
        return sidecar

    async def wait(self) -> int:
        """Wait forever: its container restarts it, and only its streams are lost."""
        await asyncio.Event().wait()
        raise AssertionError("never set")

    async def stop(self) -> None:
        """Remove the configuration and end Envoy."""
        self._sockets.config.unlink(missing_ok=True)
        if await self.admin.responds():
            await self.admin.quit()
        await self.admin.close()
