"""Rotation by URL, in virtual time: what is fetched when, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from autoglm.gateway.identity.identity import (
    PERIOD_SECONDS,
    WAIT_SECONDS,
    JwksUrl,
)
from autoglm.gateway.identity.jwks import FETCH_PAUSE_SECONDS, KeySet

pytestmark = pytest.mark.looptime


class Site:
    """A server of key sets in place of a session. Counts the requests for them."""

    def __init__(self, body: bytes) -> None:
        self.body, self.status, self.seconds, self.requests = body, 200, 0.0, 0

    @asynccontextmanager
    async def get(self, url: str, **options: Any) -> AsyncIterator[Any]:
        assert not options["allow_redirects"]
        self.requests += 1
        await asyncio.sleep(self.seconds)
        if not self.body:
            raise TimeoutError
        yield Response(self.status, self.body)


class Response:
    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.content, self._body = status, self, body

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body


class Stage:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.taken: list[KeySet] = []
        loop = asyncio.get_running_loop()
        session: Any = site
        self.url = JwksUrl("https://issuer/jwks", session, self.taken.append, loop.time)
        self._run = loop.create_task(self.url.run())

    async def __aenter__(self) -> Stage:
        await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._run.cancel()
        await asyncio.wait([self._run])


async def test_keys_are_there_from_the_start_and_read_again(issuer: Any) -> None:
    async with Stage(Site(issuer.jwks())) as stage:
        assert [set(k.by_id) for k in stage.taken] == [{("r1", "RS256"), ("e1", "ES256")}]
        await asyncio.sleep(PERIOD_SECONDS)
    assert stage.site.requests == 2
    assert len(stage.taken) == 1, "the same again is no news"


async def test_new_key_is_fetched_when_it_is_requested(issuer: Any) -> None:
    async with Stage(Site(issuer.jwks())) as stage:
        stage.site.body = issuer.jwks(issuer.jwk(kid="r2"))
        await asyncio.sleep(FETCH_PAUSE_SECONDS)
        await stage.url.refresh()
        assert set(stage.taken[-1].by_id) == {("r2", "RS256")}


async def test_made_up_keys_cause_one_fetch_in_a_pause(issuer: Any) -> None:
    async with Stage(Site(issuer.jwks())) as stage:
        for _ in range(1000):
            await asyncio.gather(*(stage.url.refresh() for _ in range(3)))
            await asyncio.sleep(0.1)
        assert stage.site.requests <= 1 + 100 / FETCH_PAUSE_SECONDS


async def test_requests_do_not_wait_long_for_a_slow_site(issuer: Any) -> None:
    async with Stage(Site(issuer.jwks())) as stage:
        await asyncio.sleep(FETCH_PAUSE_SECONDS)
        stage.site.seconds = 4.0
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(stage.url.refresh() for _ in range(5)))
        assert asyncio.get_running_loop().time() - began == pytest.approx(WAIT_SECONDS)
    assert stage.site.requests == 2


@pytest.mark.parametrize(("status", "body"), [(200, b""), (500, b"x"), (200, b"x"), (302, b"x")])
async def test_keys_stay_while_the_site_is_down(issuer: Any, status: int, body: bytes) -> None:
    async with Stage(Site(issuer.jwks())) as stage:
        stage.site.status, stage.site.body = status, body
        await asyncio.sleep(3 * PERIOD_SECONDS)
    assert len(stage.taken) == 1


async def test_site_that_is_down_at_the_start_is_fetched_again_soon(issuer: Any) -> None:
    async with Stage(Site(b"")) as stage:
        assert stage.taken == []
        stage.site.body = issuer.jwks()
        await asyncio.sleep(FETCH_PAUSE_SECONDS)
        assert len(stage.taken) == 1


async def test_endless_response_is_not_read(issuer: Any) -> None:
    async with Stage(Site(b" " * (2**20 + 1) + issuer.jwks())) as stage:
        assert stage.taken == []
