"""What is asked of a running Envoy, over its admin socket. Called by `program` and `sidecar`."""

from __future__ import annotations

import aiohttp

READY = "/ready"


class Admin:
    """`path` is of the socket."""

    def __init__(self, path: str) -> None:
        self._session = aiohttp.ClientSession("http://envoy", connector=aiohttp.UnixConnector(path))

    async def ports(self) -> dict[str, int]:
        """Where each listener listens, by name."""
        async with self._session.get("/listeners?format=json") as page:
            listeners = (await page.json(content_type=None))["listener_statuses"]
        return {
            one["name"]: one["local_address"]["socket_address"]["port_value"] for one in listeners
        }

    async def is_there(self, path: str = "/server_info") -> bool:
        """With READY: whether it listens."""
        try:
            async with self._session.get(path) as page:
                return page.status == 200
        except aiohttp.ClientError:
            return False

    async def turn_away(self) -> None:
        """From now on its answers ask clients to connect elsewhere."""
        await self._post("/healthcheck/fail")

    async def stop_listening(self) -> None:
        """No new connections; those there are go on."""
        await self._post("/drain_listeners")

    async def quit(self) -> None:
        await self._post("/quitquitquit")

    async def close(self) -> None:
        await self._session.close()

    async def _post(self, path: str) -> None:
        async with self._session.post(path) as page:
            await page.read()
