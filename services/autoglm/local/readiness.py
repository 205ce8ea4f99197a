"""Waits until a process says over HTTP that it is ready. Called by `runtime` for each start."""

from __future__ import annotations

import asyncio

import aiohttp

POLL_SECONDS = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=2)


async def wait_ready(session: aiohttp.ClientSession, address: str) -> None:
    """Returns once `/health/ready` answers 200; until then it may refuse or answer otherwise."""
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
