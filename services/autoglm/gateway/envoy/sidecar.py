"""An Envoy that somebody else runs, such as a container of the official image beside ours.

It starts once its configuration is in the shared directory, and is told to end when the gateway
ends: whoever runs it starts it anew, to wait for the next configuration. Called by `plane`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from autoglm.gateway.envoy.admin import READY, Admin
from autoglm.gateway.envoy.config.names import Sockets
from autoglm.gateway.envoy.program import EnvoyFailed

# Its image may have to come first.
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05


class Sidecar:
    """Has the interface of `program.Envoy`."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self.admin = Admin(sockets.admin)

    @classmethod
    async def start(cls, config: Mapping[str, Any], sockets: Sockets) -> Sidecar:
        """Returns once it listens, as `config` says. Raises EnvoyFailed."""
        sidecar = cls(sockets)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await sidecar._begin(json.dumps(config))
        except TimeoutError as error:
            await sidecar.admin.close()
            raise EnvoyFailed(
                f"no Envoy has answered at {sockets.admin} for {_START_SECONDS:.0f} s; does one "
                f"run that was started with -c {sockets.config} ?"
            ) from error
        return sidecar

    async def wait(self) -> int:
        """Whoever runs it starts it again when it ends; nothing of it is lost but its streams."""
        await asyncio.Event().wait()
        raise AssertionError("never set")

    async def stop(self) -> None:
        self._sockets.config.unlink(missing_ok=True)
        if await self.admin.is_there():
            await self.admin.quit()
        await self.admin.close()

    async def _begin(self, config: str) -> None:
        """One of an earlier gateway that was killed goes first: it has another's configuration."""
        self._sockets.config.unlink(missing_ok=True)
        while await self.admin.is_there():
            await self.admin.quit()
            await asyncio.sleep(_LOOK_SECONDS)
        unfinished = self._sockets.config.with_suffix(".new")
        unfinished.write_text(config)
        unfinished.replace(self._sockets.config)
        # It says of nothing else when it does.
        while not await self.admin.is_there(READY):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
