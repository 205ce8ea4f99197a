"""Authenticates requests for the pipeline and reloads the keys when they change.

Watches the keys file, the secret's file and the key set; `authenticate` decides.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import aiohttp

from autoglm.common.addresses import without_user_info
from autoglm.common.metrics import CounterFamily
from autoglm.gateway.identity.authenticate import Authenticator, Known, Outcome, Verdict
from autoglm.gateway.identity.jwks import (
    FETCH_PAUSE_SECONDS,
    KeySet,
    key_set_of_jwks,
    key_set_of_secret,
)
from autoglm.gateway.identity.keys import ApiKeys, keys_of
from autoglm.gateway.identity.rules import IdentitySources, is_url
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.watched_file import WatchedFile

PERIOD_SECONDS = 300.0
WAIT_SECONDS = 2.0
_FETCH = aiohttp.ClientTimeout(total=5.0)
_MAX_BYTES = 1024 * 1024
_log = logging.getLogger("autoglm.gateway")


class Identity:
    """Authenticates requests after `start`. `attempts` counts by credential type and outcome."""

    def __init__(self, sources: IdentitySources, attempts: CounterFamily) -> None:
        self._sources = sources
        self._attempts = cache(attempts.labels)
        self._url: JwksUrl | None = None
        known = Known(sources.allow_anonymous, rules=sources.tokens)
        self._authenticator = Authenticator(known, sources.proxies)

    async def start(self, closing: AsyncExitStack) -> None:
        """Read all keys and watch them. Raises OSError or ValueError if a file is unreadable."""
        sources = self._sources
        work: list[Coroutine[Any, Any, None]] = []
        if sources.api_keys_file:
            keys = WatchedFile(sources.api_keys_file, keys_of)
            self._take_keys(keys.value)
            work.append(keys.watch(self._take_keys))
        if sources.secret_file or (sources.jwks and not is_url(sources.jwks)):
            parse = key_set_of_secret if sources.secret_file else key_set_of_jwks
            key_set = WatchedFile(sources.secret_file or sources.jwks, parse)
            self._take_key_set(key_set.value)
            work.append(key_set.watch(self._take_key_set))
        elif sources.jwks:
            session = await closing.enter_async_context(aiohttp.ClientSession())
            self._url = JwksUrl(sources.jwks, session, self._take_key_set)
            work.append(self._url.run())
        tasks = [asyncio.create_task(each, name="identity") for each in work]

        async def stop() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        closing.push_async_callback(stop)

    async def identify(self, request: GatewayRequest) -> Principal:
        """Return the caller. Raises Unauthenticated, PermissionDenied, RateLimited or
        KeysUnavailable.
        """
        verdict = self._judge(request)
        if verdict.outcome is Outcome.UNKNOWN_KEY:
            verdict = await self._judge_with_new_keys(request, verdict)
        self._attempts(verdict.method, verdict.outcome).inc()
        if verdict.principal is None:
            raise verdict.error()
        return verdict.principal

    async def _judge_with_new_keys(self, request: GatewayRequest, verdict: Verdict) -> Verdict:
        """Judge a token signed with an unknown key again, once the issuer's keys are refreshed."""
        if self._url is not None:
            await self._url.refresh()
            verdict = self._judge(request)
        if verdict.outcome is Outcome.UNKNOWN_KEY:
            verdict = self._authenticator.give_up(request.peer, time.monotonic(), verdict)
        return verdict

    def _judge(self, request: GatewayRequest) -> Verdict:
        return self._authenticator.judge(
            request.credentials, request.peer, time.monotonic(), time.time()
        )

    def _take_keys(self, keys: ApiKeys) -> None:
        self._authenticator.know(replace(self._authenticator.known, keys=keys))

    def _take_key_set(self, key_set: KeySet) -> None:
        self._authenticator.know(replace(self._authenticator.known, key_set=key_set))


class JwksUrl:
    """Fetches a JSON Web Key Set every few minutes, and for a token with an unknown key.

    Calls `on_keys` with each key set that differs from the previous one. Requests wait at most
    `WAIT_SECONDS` for a fetch, and tokens with invented key ids cause at most one fetch in
    `FETCH_PAUSE_SECONDS`. While the URL is unavailable, the previous keys stay in use.
    """

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
        """Fetch the key set; redirects are not followed, since they could leave TLS."""
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
