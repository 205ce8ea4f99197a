"""Fetches a JSON Web Key Set from its URL every few minutes, and for a token with an unknown key.

Requests wait at most `WAIT_SECONDS` for a fetch, and tokens with invented key ids cause at most one
fetch in `FETCH_PAUSE_SECONDS`. While the URL is unavailable, the previous keys stay in use.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp

from autoglm.common.addresses import without_user_info
from autoglm.gateway.identity.jwks import FETCH_PAUSE_SECONDS, KeySet, key_set_of_jwks

PERIOD_SECONDS = 300.0
WAIT_SECONDS = 2.0
_FETCH = aiohttp.ClientTimeout(total=5.0)
_MAX_BYTES = 1024 * 1024
_log = logging.getLogger("autoglm.gateway")


class JwksUrl:
    """Calls `on_keys` with each key set that differs from the previous one."""

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        on_keys: Callable[[KeySet], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._session = session
        self._on_keys = on_keys
        self._clock = clock
        self._seen = b""
        self._next_at = float("-inf")
        self._fetching: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Fetch periodically until cancelled."""
        try:
            while True:
                is_good = await asyncio.shield(self._begin())
                await asyncio.sleep(PERIOD_SECONDS if is_good else FETCH_PAUSE_SECONDS)
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    async def refresh(self) -> None:
        """Wait for the running fetch, or for a new one if the pause is over."""
        if (self._fetching is None or self._fetching.done()) and self._clock() < self._next_at:
            return
        await asyncio.wait([self._begin()], timeout=WAIT_SECONDS)

    def _begin(self) -> asyncio.Task[bool]:
        """Return the running fetch, or start one."""
        if self._fetching is None or self._fetching.done():
            self._next_at = self._clock() + FETCH_PAUSE_SECONDS
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        return self._fetching

    async def _fetch(self) -> bool:
        try:
            text = await self._get()
            if text != self._seen:
                self._on_keys(key_set_of_jwks(text))
                self._seen = text
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            why = without_user_info(str(error)) or type(error).__name__
            shown = without_user_info(self._url)
            _log.warning("cannot fetch keys from %s, keeping the previous ones: %s", shown, why)
            return False
        return True

    async def _get(self) -> bytes:
        """Redirects are not followed: they could leave TLS."""
        request = self._session.get(self._url, timeout=_FETCH, allow_redirects=False)
        async with request as response:
            if response.status != 200:
                raise ValueError(f"the response has status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ValueError(f"the response has more than {_MAX_BYTES} bytes")
            return bytes(body)
