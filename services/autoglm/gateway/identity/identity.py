"""Authenticates requests for the pipeline and reloads the keys when they change.

Watches the keys file, the secret's file and the key set; `authenticate` decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import aiohttp
from prometheus_client import Counter

from autoglm.common.watched_file import WatchedFile
from autoglm.gateway.identity.authenticate import Authenticator, Known, Outcome, Verdict
from autoglm.gateway.identity.jwks import KeySet, key_set_of_jwks, key_set_of_secret
from autoglm.gateway.identity.jwks_url import JwksUrl
from autoglm.gateway.identity.keys import ApiKeys, keys_of
from autoglm.gateway.identity.rules import IdentitySources, is_url
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import GatewayRequest


class Identity:
    """Authenticates requests after `start`. `attempts` counts by credential type and outcome."""

    def __init__(
        self,
        sources: IdentitySources,
        attempts: Counter,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources
        self._attempts = cache(attempts.labels)
        self._clock = clock
        self._wall = wall
        self._url: JwksUrl | None = None
        self._authenticator = Authenticator(Known(sources.allow_anonymous, rules=sources.tokens))

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
        closing.push_async_callback(_end, tasks)

    async def identify(self, call: GatewayRequest) -> Principal:
        """Return the caller. Raises Unauthenticated, PermissionDenied, RateLimited or
        KeysUnavailable.
        """
        verdict = self._judge(call)
        if verdict.outcome is Outcome.UNKNOWN_KEY:
            verdict = await self._with_fresh_keys(call, verdict)
        self._attempts(verdict.method, verdict.outcome).inc()
        if verdict.principal is None:
            raise verdict.error()
        return verdict.principal

    async def _with_fresh_keys(self, call: GatewayRequest, verdict: Verdict) -> Verdict:
        if self._url is not None:
            await self._url.refresh()
            verdict = self._judge(call)
        if verdict.outcome is not Outcome.UNKNOWN_KEY:
            return verdict
        return self._authenticator.give_up(call.peer, self._clock(), verdict)

    def _judge(self, call: GatewayRequest) -> Verdict:
        return self._authenticator.judge(call.credentials, call.peer, self._clock(), self._wall())

    def _take_keys(self, keys: ApiKeys) -> None:
        self._authenticator.know(replace(self._authenticator.known, keys=keys))

    def _take_key_set(self, key_set: KeySet) -> None:
        self._authenticator.know(replace(self._authenticator.known, key_set=key_set))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
