"""Polls until a process is ready, and until the gateway has it in its pool. Called by `runtime`."""

from __future__ import annotations

import asyncio

import aiohttp

from autoglm.gateway.endpoints.endpoint import Phase

POLL_SECONDS = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=2)


async def wait_ready(session: aiohttp.ClientSession, address: str) -> None:
    """Poll `/health/ready` until the status is 200; errors until then are expected."""
    url = f"http://{address}/health/ready"
    while True:
        if await _is_ready(session, url):
            return
        await asyncio.sleep(POLL_SECONDS)


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=_TIMEOUT) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def wait_routable(session: aiohttp.ClientSession, gateway: str, url: str) -> None:
    """Poll the admin port of a gateway until the endpoint is ready in its pool."""
    while True:
        if await _is_routable(session, f"http://{gateway}/admin/endpoints", url):
            return
        await asyncio.sleep(POLL_SECONDS)


async def _is_routable(session: aiohttp.ClientSession, page: str, url: str) -> bool:
    try:
        async with session.get(page, timeout=_TIMEOUT) as response:
            found = await response.json() if response.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
    states = {endpoint["url"]: endpoint["state"] for endpoint in found.get("endpoints", ())}
    return states.get(url) == Phase.READY.value
