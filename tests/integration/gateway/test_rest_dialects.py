"""Errors on the REST port: each API's in its own dialect, before a stream and inside one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from tests.support.rest_stack import RestStack, rest_stack

from autoglm.common.errors import PermissionDenied, RateLimited, Unauthenticated
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import GatewayRequest

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
STREAM = "/v2/models/m/generate_stream"
INFER = "/v2/models/m/infer"
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True},
    MESSAGES: {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
    },
    RESPONSES: {"model": "m", "input": "x", "stream": True},
    STREAM: {"text_input": "x"},
}
Identify = Callable[[GatewayRequest], Awaitable[Principal]]


def is_openai(answer: Any) -> bool:
    return set(answer) == {"error"} and isinstance(answer["error"]["message"], str)


def is_anthropic(answer: Any) -> bool:
    shape = set(answer) == {"type", "error", "request_id"} and answer["type"] == "error"
    return shape and set(answer["error"]) == {"type", "message"}


def is_oip(answer: Any) -> bool:
    return set(answer) == {"error"} and isinstance(answer["error"], str)


SHAPES = {CHAT: is_openai, RESPONSES: is_openai, MESSAGES: is_anthropic, STREAM: is_oip}


async def post(gateway: RestStack, path: str, body: Any, **options: Any) -> tuple[int, Any, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with gateway.client.post(path, data=data, **options) as response:
        return response.status, await response.json(), response.headers


def check_request_id(path: str, headers: Any) -> None:
    assert headers["x-request-id"]
    assert headers.get("request-id") == (headers["x-request-id"] if path == MESSAGES else None)


async def never(_: web.Request) -> web.Response:
    raise AssertionError("must not be reached")


@pytest.mark.parametrize("path", SHAPES)
async def test_a_wrong_request_is_an_error_of_the_paths_dialect(path: str, plane: str) -> None:
    async with rest_stack(never, plane=plane, max_body_bytes=1000) as gateway:
        for body, code in ((b"{", 400), (b" " * 1001, 413)):
            status, answer, headers = await post(gateway, path, body)
            assert status == code and SHAPES[path](answer), answer
            check_request_id(path, headers)


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (Unauthenticated("no key"), 401, "authentication_error"),
        (PermissionDenied("not yours"), 403, "permission_error"),
        (RateLimited("too many", retry_after=7.0), 429, "rate_limit_error"),
    ],
)
@pytest.mark.parametrize("path", SHAPES)
async def test_a_rejected_caller_reads_an_error_of_the_paths_dialect(
    path: str, error: Any, code: int, kind: str, plane: str
) -> None:
    async def identify(_: GatewayRequest) -> Principal:
        raise type(error)(error.message, retry_after=error.retry_after)

    async with rest_stack(never, plane=plane, identify=identify) as gateway:
        status, answer, headers = await post(gateway, path, ASKED[path])
    assert status == code and SHAPES[path](answer)
    check_request_id(path, headers)
    assert headers.get("retry-after") == ("7" if code == 429 else None)
    if path != STREAM:
        assert answer["error"]["type"] == kind


async def test_unknown_paths_and_methods_have_the_dialect_of_their_family(plane: str) -> None:
    async with rest_stack(never, plane=plane) as gateway:
        for path, shape in (
            ("/v1/nothing", is_openai),
            ("/v1/messages/nothing", is_anthropic),
            ("/v2/repository/index", is_oip),
        ):
            status, answer, _ = await post(gateway, path, {})
            assert status == 404 and shape(answer), answer
        for path, shape in ((CHAT, is_openai), (MESSAGES, is_anthropic), (INFER, is_oip)):
            async with gateway.client.get(path) as response:
                assert response.status == 405 and shape(await response.json())
                assert response.headers["allow"] == "POST"


async def test_an_unknown_model_of_the_protocol_is_a_text(plane: str) -> None:
    async with (
        rest_stack(never, plane=plane) as gateway,
        gateway.client.get("/v2/models/nope") as response,
    ):
        assert response.status == 404
        assert "'nope'" in (await response.json())["error"]


async def test_a_good_response_has_the_request_id_where_its_sdk_reads_it(plane: str) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response({"id": "msg_1"}, headers={"Request-Id": "theirs"})

    async with rest_stack(respond, plane=plane) as gateway:
        for path in (CHAT, MESSAGES):
            headers = {"x-request-id": "mine"}
            _, _, got = await post(gateway, path, ASKED[path] | {"stream": False}, headers=headers)
            assert got.getall("x-request-id") == ["mine"]
            expected = ["mine"] if path == MESSAGES else ["theirs"]
            assert got.getall("request-id") == expected


async def test_proxies_are_requested_not_to_buffer_an_event_stream(plane: str) -> None:
    async with (
        rest_stack(streaming(b"data: 1\n\n"), plane=plane) as gateway,
        gateway.client.post(CHAT, json=ASKED[CHAT]) as response,
    ):
        await response.read()
    assert response.headers.getall("x-accel-buffering") == ["no"]
    assert response.headers.getall("cache-control") == ["no-cache"]


def streaming(*chunks: bytes, die: bool = False, stall: bool = False) -> Any:
    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            # In a packet of its own.
            await asyncio.sleep(0.02)
        if stall:
            await asyncio.sleep(60)
        if die:
            assert request.transport
            request.transport.abort()
        return response

    return respond


BEGUN = b'event: x\ndata: {"type": "x", "sequence_number": 4}\n\n'


def last_event(text: str) -> tuple[str, Any]:
    lines = text.rstrip("\n").rpartition("\n\n")[2].strip().split("\n")
    name = lines[0].removeprefix("event: ") if len(lines) > 1 else ""
    return name, json.loads(lines[-1].removeprefix("data: "))


def check_broken(path: str, text: str, code: str, kind: str) -> None:
    name, data = last_event(text)
    if path == MESSAGES:
        assert name == "error" and is_anthropic(data) and data["error"]["type"] == kind
    elif path == RESPONSES:
        assert name == data["type"] == "error" and data["sequence_number"] == 5
        assert data["error"]["code"] == data["code"] == code
    elif path == STREAM:
        assert name == "" and is_oip(data)
    else:
        assert name == "" and is_openai(data) and data["error"]["code"] == code


@pytest.mark.plane("embedded", "Envoy cuts the connection: see the test below")
@pytest.mark.parametrize("path", SHAPES)
async def test_a_stream_that_breaks_ends_with_an_error_event_of_its_dialect(
    path: str, plane: str
) -> None:
    broken = streaming(BEGUN, b'event: y\ndata: {"half', die=True)
    async with (
        rest_stack(broken, plane=plane) as gateway,
        gateway.client.post(path, json=ASKED[path]) as response,
    ):
        text = await response.text()
    assert "half" not in text
    check_broken(path, text, "stream_broken", "api_error")


@pytest.mark.plane("embedded", "Envoy cuts the connection: see the test below")
@pytest.mark.parametrize("path", SHAPES)
async def test_a_stream_at_its_deadline_ends_with_an_error_event_of_its_dialect(
    path: str, plane: str
) -> None:
    async with rest_stack(streaming(BEGUN, stall=True), plane=plane) as gateway:
        headers = {"x-request-timeout-seconds": "1.5"}
        async with gateway.client.post(path, json=ASKED[path], headers=headers) as response:
            text = await response.text()
    check_broken(path, text, "deadline_exceeded", "timeout_error")


@pytest.mark.plane("embedded", "Envoy cannot read what it passes on")
@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_half_a_stream_of_a_server_without_framing_is_broken(path: str, plane: str) -> None:
    """As of HTTP/1.0, where the end of the connection is the end of the response."""

    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.transport
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        request.transport.write(head + BEGUN)
        request.transport.close()
        return web.StreamResponse()

    async with (
        rest_stack(respond, plane=plane) as gateway,
        gateway.client.post(path, json=ASKED[path]) as response,
    ):
        text = await response.text()
    check_broken(path, text, "stream_broken", "api_error")


@asynccontextmanager
async def http10_server() -> AsyncIterator[str]:
    """Lists a model, and breaks every stream; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        kind, body = "application/json", b'{"data": [{"id": "m"}]}'
        if head.startswith(b"POST"):
            kind, body = "text/event-stream", BEGUN
        writer.write(f"HTTP/1.0 200 OK\r\ncontent-type: {kind}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_half_a_stream_of_an_http_1_0_server_is_broken(
    path: str, plane: str, fleet: Any
) -> None:
    async with http10_server() as url, aiohttp.ClientSession() as session:
        gateway = await fleet.gateway(ready=1, endpoint=(url,))
        async with session.post(
            f"http://127.0.0.1:{gateway.http_port}{path}", json=ASKED[path]
        ) as response:
            text = await response.text()
    check_broken(path, text, "stream_broken", "api_error")


@pytest.mark.parametrize("given", [{}, {"x-should-retry": "false"}])
async def test_a_servers_own_501_is_not_retried_by_sdks(given: dict[str, str], plane: str) -> None:
    async def respond(request: web.Request) -> web.Response:
        error = {"error": {"message": "no", "code": "x"}}
        return web.json_response(error, status=int(request.query["status"]), headers=given)

    async with rest_stack(respond, plane=plane) as gateway:
        found = {}
        for status in (200, 400, 501):
            url = f"{CHAT}?status={status}"
            async with gateway.client.post(url, json=ASKED[CHAT]) as response:
                assert response.status == status
                found[status] = response.headers.getall("x-should-retry", [])
    assert found[501] == ["false"]
    assert found[200] == found[400] == list(given.values())


@pytest.mark.plane("embedded", "Envoy's connection ends with the stream")
async def test_the_connection_serves_on_after_an_error_event(plane: str) -> None:
    async with rest_stack(streaming(BEGUN, die=True), plane=plane) as gateway:
        async with gateway.client.post(CHAT, json=ASKED[CHAT]) as response:
            await response.read()
        assert response.headers.get("connection", "") != "close"
        assert gateway.client.connector is not None
        async with gateway.client.get("/health") as again:
            assert again.status == 200


@pytest.mark.plane("envoy", "the embedded plane sends an error event")
@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("end", [{"die": True}, {"stall": True}])
async def test_a_stream_that_breaks_behind_envoy_never_looks_whole(
    path: str, end: dict[str, bool], plane: str
) -> None:
    async with rest_stack(streaming(BEGUN, **end), plane=plane) as gateway:
        headers = {"x-request-timeout-seconds": "1.5"}
        async with gateway.client.post(path, json=ASKED[path], headers=headers) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_openais_client_raises_for_a_stream_that_breaks(plane: str) -> None:
    """The cut connection behind Envoy, and the error event of the embedded plane."""
    async with (
        rest_stack(streaming(BEGUN, die=True), plane=plane) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
    assert isinstance(caught.value, openai.APIConnectionError) is (plane == "envoy")


@pytest.mark.plane("embedded", "Envoy passes a server's answers on as they are")
@pytest.mark.parametrize("path", SHAPES)
async def test_what_the_server_cannot_do_is_not_retried_by_sdks(path: str, plane: str) -> None:
    async def plain_404(_: web.Request) -> web.Response:
        return web.Response(status=404, text="404: Not Found")

    async with rest_stack(plain_404, plane=plane) as gateway:
        status, answer, headers = await post(gateway, path, ASKED[path])
    assert status == 501 and SHAPES[path](answer)
    assert headers["x-should-retry"] == "false"
