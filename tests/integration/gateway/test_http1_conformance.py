"""The REST port of both planes against a list of RFC 9110 and RFC 9112 (tests/support/http1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from tests.support.http1.client import RawClient, raw_client
from tests.support.http1.row import Row, post
from tests.support.http1.rows import ROWS, table
from tests.support.rest_stack import rest_stack

# Of a request that the gateway holds for ever.
_TIMEOUT_SECONDS = 5.0
DOCUMENT = Path(__file__).parents[3] / "docs/http-conformance.md"


async def respond(request: web.Request) -> web.StreamResponse:
    """Respond as the prompt says, or with what was received."""
    body = (await request.read()).decode()
    if "cookies" in body:
        cookies = web.json_response({})
        cookies.headers.add("Set-Cookie", "a=1")
        cookies.headers.add("Set-Cookie", "b=2")
        return cookies
    if '"chunked"' in body:
        stream = web.StreamResponse()
        await stream.prepare(request)
        for piece in (b'{"a":', b"1}"):
            await stream.write(piece)
        return stream
    if '"hop"' in body:
        hop = {"Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=5", "X-E": "1"}
        return web.json_response({}, headers=hop)
    if '"204"' in body:
        return web.Response(status=204)
    if '"early"' in body and isinstance(request.transport, asyncio.Transport):
        request.transport.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
    headers = [(name.lower(), value) for name, value in request.headers.items()]
    return web.json_response({"headers": headers, "body": body})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(plane: str) -> AsyncIterator[str]:
    async with rest_stack(respond, plane=plane, timeout=_TIMEOUT_SECONDS) as gateway:
        yield gateway.url


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
async def test_a_request_gets_its_response(
    row: Row, plane: str, url: str, request: pytest.FixtureRequest
) -> None:
    if fault := row.fault(plane):
        request.applymarker(pytest.mark.xfail(reason=fault))
    expected = row.outcome(plane).split()
    async with raw_client(url) as client:
        client.send(row.raw)
        found = [await client.receive(row.raw.split()[0].decode()) for _ in statuses(expected)]
        assert all(found)
        last = found[-1]
        assert last is not None
        assert [str(one.status) for one in found if one] == statuses(expected)
        assert row.also(last)
        if last.one("connection") == "close":
            # Envoy waits a second for it.
            client.end()
        is_kept = last.one("connection") != "close" and await client.is_kept()
        assert is_kept == ("close" not in expected)
        assert is_kept or await client.receive() is None


def statuses(outcome: list[str]) -> list[str]:
    return [word for word in outcome if word.isdigit()]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_body_that_ends_early_gets_no_response(url: str) -> None:
    async with raw_client(url) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        client.end()
        assert await client.receive() is None


@pytest.mark.asyncio(loop_scope="module")
async def test_continue_comes_before_the_body_is_sent(url: str) -> None:
    head, body = post("Expect: 100-continue").split(b"\r\n\r\n")
    async with raw_client(url) as client:
        client.send(head + b"\r\n\r\n")
        assert await status(client) == 100
        client.send(body)
        assert await status(client) == 200


async def status(client: RawClient) -> int:
    found = await client.receive()
    assert found is not None
    return found.status


def test_the_document_has_all_rows() -> None:
    how = "put in it what `python -m tests.support.http1.rows` prints"
    assert table() in DOCUMENT.read_text(), how
