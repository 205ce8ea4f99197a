"""Stops a gRPC server without dropping a call. Used by gateway and pod."""

from __future__ import annotations

import asyncio

import grpc

_HOLD_SECONDS = 0.05


class DrainGate:
    """What calls pass before they count; held, they wait in front of it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    async def passed(self) -> None:
        """Returns at once unless calls are held."""
        await self._open.wait()

    async def stop(self, server: grpc.aio.Server, grace: float) -> asyncio.Task[None]:
        """Starts to stop the server and returns the task that waits for its end.

        A stopping server drops calls that have arrived but are not handled yet. While new calls are
        held for a moment, clients that send one call after the other wait: no further call arrives.
        """
        self._open.clear()
        await asyncio.sleep(_HOLD_SECONDS)
        stopping = asyncio.create_task(server.stop(grace))
        await asyncio.sleep(0)
        self._open.set()
        return stopping
