"""HTTP/1.1 on the REST port as bytes: framing, rejections in each dialect, reuse of connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.support.rest_stack import RestStack, rest_stack

CHAT = "/v1/chat/completions"
HELLO = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()


async def echo(request: web.Request) -> web.Response:
    await request.read()
    headers = {k.lower(): v for k, v in request.headers.items()}
    return web.json_response({"target": request.path_qs, "headers": headers})


class Client:
    """One connection, on which requests are sent as they are given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def exchange(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return the response's status, headers and body."""
        self.writer.write(raw)
        async with asyncio.timeout(10):
            return await self.response()

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body = await self.reader.readuntil(b"0\r\n\r\n")
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.reader.read()
        return int(lines[0].split()[1]), headers, body


@asynccontextmanager
async def client_of(gateway: RestStack) -> AsyncIterator[Client]:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def post(target: str = CHAT, *headers: str, body: bytes = HELLO, version: str = "1.1") -> bytes:
    head = [f"POST {target} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (post(CHAT, "X: " + 70_000 * "s", "Y: z"), 431, "head_too_large"),
        (post(CHAT, "Transfer-Encoding: chunked"), 400, "invalid_request"),
        (post(CHAT, "Content-Length: 1"), 400, "invalid_request"),
        (post(CHAT, "X : y"), 400, "invalid_request"),
        (post(CHAT, "Expect: magic"), 417, "expectation_failed"),
        (post(CHAT, "Host: y"), 400, "invalid_request"),
        (post(CHAT, version="2.0"), 505, "http_version_not_supported"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_valid_http_gets_an_error_of_the_api_and_the_connection_ends(
    raw: bytes, status: int, code: str
) -> None:
    async with rest_stack(echo) as gateway, client_of(gateway) as client:
        found, headers, body = await client.exchange(raw)
        error = json.loads(body)["error"]
        assert (found, error["code"]) == (status, code)
        assert error["request_id"] == headers["x-request-id"]
        assert headers["connection"] == "close"
        assert "ssss" not in error["message"]


async def test_a_rejection_has_the_dialect_of_its_path() -> None:
    async with rest_stack(echo) as gateway:
        async with client_of(gateway) as client:
            bad = post("/v2/models/m/infer", "Transfer-Encoding: chunked")
            status, _, body = await client.exchange(bad)
            assert (status, type(json.loads(body)["error"])) == (400, str)
        async with client_of(gateway) as client:
            status, headers, body = await client.exchange(post("/v1/messages", "Host: y"))
            assert (status, json.loads(body)["type"]) == (400, "error")
            assert headers["request-id"] == json.loads(body)["request_id"]


async def test_an_invalid_chunk_is_an_error_of_the_api() -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with rest_stack(echo) as gateway, client_of(gateway) as client:
        status, headers, body = await client.exchange(head + b"zz\r\n")
        assert (status, headers["connection"]) == (400, "close")
        assert "could not be read" in json.loads(body)["error"]["message"]


async def test_repeated_headers_reach_the_pod() -> None:
    async with rest_stack(echo) as gateway, client_of(gateway) as client:
        beta = ("Anthropic-Beta: one", "anthropic-beta: two")
        _, _, body = await client.exchange(post(CHAT, *beta))
        assert json.loads(body)["headers"]["anthropic-beta"] == "one, two"


@pytest.mark.parametrize(
    "target", ["http://x" + CHAT, "HTTP://x:80" + CHAT, "/v1/%63hat/completions"]
)
async def test_other_forms_of_a_target_reach_its_route(target: str) -> None:
    async with rest_stack(echo) as gateway, client_of(gateway) as client:
        status, _, body = await client.exchange(post(target + "?a=b"))
        assert (status, json.loads(body)["target"].partition("?")[2]) == (200, "a=b")


async def test_an_encoded_slash_is_no_part_of_a_path() -> None:
    async with rest_stack(echo) as gateway, client_of(gateway) as client:
        status, _, _ = await client.exchange(post("/v1%2Fchat/completions"))
        assert status == 404
        get = b"GET /v1/models/org%2Fnone HTTP/1.1\r\nHost: x\r\n\r\n"
        status, _, body = await client.exchange(get)
        assert status == 404 and "'org/none'" in json.loads(body)["error"]["message"]


async def test_a_client_of_http_1_0_is_served_and_its_connection_ends() -> None:
    async with rest_stack(echo) as gateway, client_of(gateway) as client:
        status, headers, _ = await client.exchange(post(version="1.0"))
        assert (status, headers["connection"]) == (200, "close")
        assert await client.reader.read() == b""


async def test_head_has_the_length_of_get_and_no_body() -> None:
    async with rest_stack(echo) as gateway, client_of(gateway) as client:
        _, got, _ = await client.exchange(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        client.writer.write(b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        head = (await client.reader.readuntil(b"\r\n\r\n")).lower()
        assert f"content-length: {got['content-length']}\r\n".encode() in head
        status, _, _ = await client.exchange(post())
        assert status == 200, "nothing of a body is in between"


async def test_a_connection_serves_on_after_an_error_and_after_a_broken_stream() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await asyncio.sleep(0)
        assert request.transport
        request.transport.abort()
        return response

    streaming: dict[str, Any] = {**json.loads(HELLO), "stream": True}
    async with rest_stack(broken) as gateway, client_of(gateway) as client:
        status, _, _ = await client.exchange(post("/v1/nothing"))
        assert status == 404
        for _ in range(2):
            status, _, body = await client.exchange(post(body=json.dumps(streaming).encode()))
            assert b"error" in body
        status, _, _ = await client.exchange(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 200
