"""A server's Retry-After reaches the client, and holds for the gateway's own retries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.support.rest_stack import Answer, RestStack, rest_stack

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


class Server:
    """Responds the same way every time, and counts."""

    def __init__(self, status: int, retry_after: str = "", headers: Mapping[str, str] = {}) -> None:
        self.posts = 0
        self._status = status
        self._headers = {**headers, **({"retry-after": retry_after} if retry_after else {})}

    async def respond(self, _: web.Request) -> web.Response:
        self.posts += 1
        error = {"error": {"message": "later", "code": "busy"}}
        return web.json_response(error, status=self._status, headers=self._headers)


async def post(gateway: RestStack) -> tuple[int, str | None]:
    async with gateway.client.post(CHAT, json=HELLO) as response:
        await response.read()
        return response.status, response.headers.get("retry-after")


async def test_a_server_that_says_when_to_return_is_ejected_until_then(plane: str) -> None:
    server = Server(503, "40")
    async with rest_stack(server.respond, plane=plane) as gateway:
        assert await post(gateway) == (503, "40")
    # Envoy sends one request back to the gateway without the reason, which finds it out again.
    assert server.posts == (2 if plane == "envoy" else 1)


async def test_another_server_is_tried_at_once(plane: str) -> None:
    busy, ready = Server(503, "40"), Server(200)
    async with rest_stack(busy.respond, ready.respond, plane=plane) as gateway:
        for _ in range(6):
            assert await post(gateway) == (200, None)
    assert busy.posts <= 6


async def test_the_soonest_time_is_passed_on(plane: str) -> None:
    servers = Server(503, "40"), Server(503, "7")
    async with rest_stack(*(server.respond for server in servers), plane=plane) as gateway:
        status, retry_after = await post(gateway)
    assert status == 503
    # Behind Envoy the first one's response stays with Envoy.
    assert retry_after == "7" or (plane == "envoy" and retry_after == "40")


async def test_the_retry_after_of_a_rate_limit_is_passed_on_and_nothing_is_retried(
    plane: str,
) -> None:
    server = Server(429, "13")
    async with rest_stack(server.respond, plane=plane) as gateway:
        assert await post(gateway) == (429, "13")
    assert server.posts == 1


async def test_a_refusal_without_a_time_is_passed_on_after_one_retry(plane: str) -> None:
    server = Server(503)
    async with rest_stack(server.respond, plane=plane) as gateway:
        assert await post(gateway) == (503, None)
    assert server.posts == 2


async def test_every_server_is_tried_before_a_refusal_is_passed_on(plane: str) -> None:
    servers = [Server(503), Server(503)]
    async with rest_stack(*(server.respond for server in servers), plane=plane) as gateway:
        assert await post(gateway) == (503, None)
    assert [server.posts for server in servers] == [1, 1]


@pytest.mark.parametrize("retry_after", ["", "40"])
async def test_a_refusal_keeps_the_servers_headers_but_those_of_its_body(
    plane: str, retry_after: str
) -> None:
    theirs = {"X-Should-Retry": "true", "X-Theirs": "1", "Content-Language": "en"}
    server = Server(503, retry_after, theirs)
    async with (
        rest_stack(server.respond, plane=plane) as gateway,
        gateway.client.post(CHAT, json=HELLO) as response,
    ):
        body = await response.json()
        headers = response.headers
    assert (response.status, body["error"]["message"]) == (503, "later")
    assert headers.get("retry-after", "") == retry_after
    assert (headers["x-should-retry"], headers["x-theirs"]) == ("true", "1")
    assert headers.getall("content-type") == ["application/json"]
    assert "content-language" not in headers


async def test_one_broken_connection_does_not_take_the_last_server_out(plane: str) -> None:
    broken = [True]

    async def breaks_first(request: web.Request) -> web.Response:
        if broken and broken.pop():
            assert request.transport
            request.transport.abort()
        return web.json_response({"id": "x"})

    # Nothing polls the servers here, so the one that broke does not return by itself.
    async with rest_stack(breaks_first, plane=plane) as gateway:
        assert [await post(gateway) for _ in range(2)] == [(200, None)] * 2


async def test_a_server_whose_stream_broke_serves_the_next_request(plane: str) -> None:
    broken = [True]

    async def breaks_a_stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        if broken and broken.pop():
            assert request.transport
            request.transport.abort()
        return response

    answer: Answer = breaks_a_stream
    async with rest_stack(answer, plane=plane) as gateway:
        ends = []
        for _ in range(2):
            async with gateway.client.post(CHAT, json=HELLO | {"stream": True}) as response:
                ends.append(response.status)
                try:
                    ends.append("error" in await response.text())
                except aiohttp.ClientError:
                    ends.append(True)
    assert ends == [200, True, 200, False]
