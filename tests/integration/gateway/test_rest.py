"""The REST edge with its layers and proxy, over HTTP, in front of fake OpenAI servers."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.support.rest_stack import Answer, RestStack, rest_stack

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
SSE = {"content-type": "text/event-stream"}


async def echo(request: web.Request) -> web.Response:
    """Says what arrived."""
    body = await request.read()
    headers = {k.lower(): v for k, v in request.headers.items()}
    return web.json_response(
        {"target": request.path_qs, "headers": headers, "body": body.decode()},
        headers={"x-pod": "yes", "keep-alive": "5"},
    )


def events(*chunks: bytes, pause: asyncio.Event | None = None, die: bool = False) -> Answer:
    """Streams chunks; waits for `pause` after the first, breaks the connection at the end."""

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=SSE)
        await response.prepare(request)
        for index, chunk in enumerate(chunks):
            await response.write(chunk)
            if pause and index == 0:
                await pause.wait()
        if die:
            await asyncio.sleep(0)
            assert request.transport
            request.transport.abort()
        return response

    return respond


async def refuse_by_reset(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def refuse_by_503(_: web.Request) -> web.Response:
    error = {"message": "going away", "code": "shutting_down"}
    return web.json_response({"error": error}, status=503)


async def post(
    gateway: RestStack, path: str = CHAT, body: Any = HELLO, **options: Any
) -> tuple[int, Any, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with gateway.client.post(path, data=io.BytesIO(data), **options) as response:
        return response.status, await response.json(), response.headers


async def until(fact: Callable[[], bool]) -> None:
    """Lets the loop turn until it is so."""
    async with asyncio.timeout(30):
        while not fact():  # noqa: ASYNC110 (plain counters have no event to wait for)
            await asyncio.sleep(0)


async def test_body_target_and_headers_arrive_as_they_were_sent(plane: str) -> None:
    async with rest_stack(echo, plane=plane) as gateway:
        headers = {
            "x-request-id": "my-id",
            "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            "authorization": "Bearer k",
            "connection": "x-hop",
            "x-hop": "1",
            "content-type": "application/json",
        }
        status, said, answer = await post(gateway, CHAT + "?a=b%20c", headers=headers)
    assert status == 200
    assert json.loads(said["body"]) == HELLO
    assert said["target"] == CHAT + "?a=b%20c"
    assert said["headers"]["x-request-id"] == "my-id"
    assert said["headers"]["traceparent"].split("-")[1] == "1" * 32
    assert said["headers"]["authorization"] == "Bearer k"
    assert "x-hop" not in said["headers"]
    assert (answer["x-request-id"], answer["x-pod"]) == ("my-id", "yes")
    assert "keep-alive" not in answer


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (CHAT, b"{", 400, None),
        (CHAT, HELLO | {"top_p": 2}, 400, "top_p"),
        (CHAT, HELLO | {"model": "x"}, 404, "model"),
        ("/v1/completions", {"model": "m", "prompt": ""}, 400, "prompt"),
        (CHAT, b" " * (2**20 + 1), 413, None),
        ("/v1/nothing", {}, 404, None),
        ("/v1/models", {}, 405, None),
    ],
)
async def test_wrong_requests_get_openais_errors_and_no_pod_hears_of_them(
    path: str, body: Any, status: int, param: str | None, plane: str
) -> None:
    async def never(_: web.Request) -> web.Response:
        raise AssertionError("must not be asked")

    async with rest_stack(never, plane=plane) as gateway:
        got, answer, headers = await post(gateway, path, body)
    assert (got, answer["error"]["param"]) == (status, param)
    assert answer["error"]["request_id"] == headers["x-request-id"]
    assert headers.get("allow") == ("GET, HEAD" if status == 405 else None)


async def test_a_request_without_a_model_reaches_the_one_that_is_served(plane: str) -> None:
    nameless = {"messages": HELLO["messages"]}
    async with rest_stack(echo, plane=plane) as gateway:
        status, said, _ = await post(gateway, CHAT, nameless)
    assert (status, json.loads(said["body"])) == (200, nameless)


async def test_an_unknown_path_lists_what_there_is(plane: str) -> None:
    async with rest_stack(echo, plane=plane) as gateway:
        _, answer, _ = await post(gateway, "/v1/nothing")
    assert "/v1/chat/completions" in answer["error"]["message"]


@pytest.mark.parametrize("bad", [refuse_by_reset, refuse_by_503])
async def test_a_pod_that_fails_before_the_first_byte_is_replaced(bad: Answer, plane: str) -> None:
    await check_replaced(bad, plane)


@pytest.mark.plane("embedded", "Envoy has passed the head on by then")
async def test_a_pod_that_fails_between_head_and_first_byte_is_replaced(plane: str) -> None:
    await check_replaced(events(die=True), plane)


async def check_replaced(bad: Answer, plane: str) -> None:
    async with rest_stack(bad, echo, plane=plane) as gateway:
        statuses = [(await post(gateway))[0] for _ in range(6)]
        await until(lambda: phases(gateway)[0] != "ready")
        assert phases(gateway)[1] == "ready"
    assert statuses == [200] * 6


def phases(gateway: RestStack) -> list[str]:
    found = {view.url: str(view.state.phase) for view in gateway.pool.snapshot.endpoints}
    return [found[url] for url in gateway.endpoints]


async def test_a_refused_connection_is_tried_elsewhere(plane: str) -> None:
    async with rest_stack(echo, echo, plane=plane) as gateway:
        view = gateway.pool.snapshot.endpoints[0]
        object.__setattr__(view, "http_base", "http://127.0.0.1:1")
        statuses = [(await post(gateway))[0] for _ in range(6)]
    assert statuses == [200] * 6


async def test_without_another_pod_the_refusal_is_503_with_a_reason(plane: str) -> None:
    async with rest_stack(refuse_by_503, plane=plane) as gateway:
        status, answer, _ = await post(gateway)
    assert (status, answer["error"]["code"]) == (503, "no_ready_endpoint")


async def test_a_pods_own_errors_are_passed_on(plane: str) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no tools"}}, status=400)

    async with rest_stack(respond, plane=plane) as gateway:
        status, said, _ = await post(gateway)
    assert (status, said) == (400, {"error": {"message": "no tools"}})


async def test_events_arrive_at_once_and_byte_for_byte(plane: str) -> None:
    pause = asyncio.Event()
    chunks = (b"data: one\n\n", b"data: tw", b"o\n\ndata: [DONE]\n\n")
    async with rest_stack(events(*chunks, pause=pause), plane=plane) as gateway:
        headers = {"accept-encoding": "gzip"}
        async with gateway.client.post(CHAT, json=HELLO, headers=headers) as response:
            assert response.headers["content-type"] == "text/event-stream"
            assert "content-encoding" not in response.headers
            first = await response.content.readany()
            pause.set()
            rest = await response.content.read()
    assert first == chunks[0]
    assert first + rest == b"".join(chunks)


@pytest.mark.plane("embedded", "Envoy writes nothing into an answer: it cuts it")
async def test_a_stream_that_breaks_ends_with_an_error_event(plane: str) -> None:
    pause = asyncio.Event()
    async with rest_stack(events(b"data: one\n\n", pause=pause, die=True), plane=plane) as gateway:
        async with gateway.client.post(CHAT, json=HELLO) as response:
            await response.content.readany()
            pause.set()
            rest = await response.content.read()
        page = b""
        while b'autoglm_gateway_requests_total{code="502"' not in page:
            async with gateway.client.get("/metrics") as response:
                page = await response.read()
    event = json.loads(rest.strip().removeprefix(b"data: "))
    assert event["error"]["code"] == "stream_broken"


async def test_a_long_response_that_breaks_does_not_look_whole(plane: str) -> None:
    pause = asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 2**24
        await response.prepare(request)
        await response.write(b"x" * 2**23)
        await pause.wait()
        assert request.transport
        request.transport.abort()
        return response

    async with (
        rest_stack(respond, plane=plane) as gateway,
        gateway.client.post(CHAT, json=HELLO) as response,
    ):
        assert response.status == 200
        pause.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@pytest.mark.plane("embedded", "Envoy does not wait for the whole of an answer")
async def test_a_short_response_that_breaks_and_has_no_other_pod_is_a_clean_503(plane: str) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 100
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.sleep(0)
        assert request.transport
        request.transport.close()
        return response

    async with rest_stack(respond, plane=plane) as gateway:
        status, said, _ = await post(gateway)
    assert (status, said["error"]["code"]) == (503, "no_ready_endpoint")
    assert "closed before the response was complete" in said["error"]["message"]


async def test_a_client_that_leaves_is_noticed_by_the_pod_and_frees_its_slot(plane: str) -> None:
    gone, begun = asyncio.Event(), asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=SSE)
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return response

    async with rest_stack(respond, plane=plane) as gateway:
        async with aiohttp.ClientSession(gateway.url) as client:
            async with client.post(CHAT, json=HELLO) as response:
                await response.content.readany()
                assert gateway.admission.in_flight == 1
                response.close()
            await asyncio.wait_for(gone.wait(), 30)
        await until(lambda: gateway.admission.in_flight == 0)


async def test_a_client_that_leaves_before_the_first_byte_is_noticed_too(plane: str) -> None:
    gone, begun = asyncio.Event(), asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    async with rest_stack(respond, plane=plane) as gateway:
        asking = asyncio.create_task(post(gateway))
        await begun.wait()
        asking.cancel()
        await asyncio.wait_for(gone.wait(), 30)


async def test_the_deadline_of_the_header_ends_the_request(plane: str) -> None:
    status, body = await overdue(b"", plane)
    assert status == 504
    assert b"deadline_exceeded" in body


@pytest.mark.plane("embedded", "Envoy writes nothing into an answer: it cuts it")
async def test_the_deadline_ends_a_stream_with_an_error_event(plane: str) -> None:
    status, body = await overdue(b"data: one\n\n", plane)
    assert status == 200
    assert b"deadline_exceeded" in body


async def overdue(first: bytes, plane: str) -> tuple[int, bytes]:
    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=SSE)
        if first:
            await response.prepare(request)
            await response.write(first)
        await asyncio.Event().wait()
        return response

    async with rest_stack(respond, plane=plane) as gateway:
        # Of a stream, long enough for its head.
        headers = {"x-request-timeout-seconds": "1.5" if first else "0.2"}
        async with gateway.client.post(CHAT, json=HELLO, headers=headers) as response:
            return response.status, await response.read()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
async def test_a_timeout_must_be_a_number_above_zero(value: str, plane: str) -> None:
    async with rest_stack(echo, plane=plane) as gateway:
        headers = {"x-request-timeout-seconds": value}
        status, answer, _ = await post(gateway, headers=headers)
    assert (status, answer["error"]["param"]) == (400, "x-request-timeout-seconds")


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("Deflate", raw_deflate)],
)
async def test_compressed_bodies_are_read_and_relayed_plain(
    encoding: str, pack: Callable[[bytes], bytes], plane: str
) -> None:
    packed = pack(json.dumps(HELLO).encode())
    async with rest_stack(echo, plane=plane) as gateway:
        _, said, _ = await post(gateway, body=packed, headers={"content-encoding": encoding})
    assert json.loads(said["body"]) == HELLO
    assert "content-encoding" not in said["headers"]


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(b" " * (2**20 + 1)), "gzip", 413),
        (gzip.compress(b"{}")[:-3], "gzip", 400),
        (gzip.compress(b"{}") + b"more", "gzip", 400),
        (b"not gzip", "gzip", 400),
        (zlib.compress(b" " * (2**20 + 1)), "deflate", 413),
        (raw_deflate(b" " * (2**20 + 1)), "deflate", 413),
        (zlib.compress(b"{}")[:-3], "deflate", 400),
        (raw_deflate(b"{}")[:-1], "deflate", 400),
        (zlib.compress(b"{}") + b"more", "deflate", 400),
        (b"not deflate", "deflate", 400),
        (b"{}", "br", 400),
    ],
)
async def test_compressed_bodies_are_bounded_and_whole(
    body: bytes, encoding: str, status: int, plane: str
) -> None:
    async with rest_stack(echo, plane=plane) as gateway:
        got, _, _ = await post(gateway, body=body, headers={"content-encoding": encoding})
    assert got == status


async def test_long_responses_are_compressed_for_those_who_accept_it(plane: str) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response({"text": "x" * 5000})

    async with rest_stack(respond, plane=plane) as gateway:
        async with gateway.client.post(
            CHAT, json=HELLO, headers={"accept-encoding": "gzip"}, compress=None
        ) as response:
            assert response.headers["content-encoding"] == "gzip"
            assert (await response.json())["text"] == "x" * 5000
        headers = {"accept-encoding": "gzip;q=0"}
        async with gateway.client.post(CHAT, json=HELLO, headers=headers) as response:
            assert "content-encoding" not in response.headers


async def test_models_are_merged_and_found_by_every_name(plane: str) -> None:
    async with rest_stack(echo, echo, plane=plane) as gateway:
        async with gateway.client.get("/v1/models") as response:
            cards = (await response.json())["data"]
        async with gateway.client.get("/v1/models/alias") as response:
            card = await response.json()
        async with gateway.client.get("/v1/models/org/none") as response:
            missing = response.status
    assert [(c["id"], c["ready_endpoints"]) for c in cards] == [("m", 2)]
    assert (card["id"], card["max_model_len"], missing) == ("alias", 100, 404)


async def test_oip_paths_are_relayed_or_served(plane: str) -> None:
    text = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Hi"]}
    async with rest_stack(echo, plane=plane) as gateway:
        status, said, _ = await post(gateway, "/v2/models/m/infer", {"inputs": [text]})
        unknown, _, _ = await post(gateway, "/v2/models/x/infer", {"inputs": [text]})
        async with gateway.client.get("/v2/models/m") as response:
            metadata = await response.json()
        async with gateway.client.get("/v2/models/m/ready") as response:
            ready = await response.json()
    assert (status, unknown, said["target"]) == (200, 404, "/v2/models/m/infer")
    assert metadata["target"] == "/v2/models/m"
    assert ready == {"name": "m", "ready": True}


async def test_readiness_follows_the_pool(plane: str) -> None:
    async with rest_stack(echo, plane=plane) as gateway:
        async with gateway.client.get("/health/ready") as response:
            before = response.status
        gateway.pool.change_endpoints([view.url for view in gateway.pool.views], (), 0.0)
        async with gateway.client.get("/health/ready") as response:
            after = response.status
        async with gateway.client.get("/health") as response:
            live = response.status
    assert (before, after, live) == (200, 503, 200)


async def test_stopping_lets_a_stream_end(plane: str) -> None:
    pause = asyncio.Event()
    async with rest_stack(
        events(b"data: 1\n\n", b"data: 2\n\n", pause=pause), plane=plane
    ) as gateway:
        async with gateway.client.post(CHAT, json=HELLO) as response:
            await response.content.readany()
            stopping = asyncio.create_task(gateway.server.stop(5.0))
            await asyncio.sleep(0)
            pause.set()
            rest = await response.content.read()
        await stopping
    assert rest == b"data: 2\n\n"


async def test_a_slow_reader_holds_the_pod_back(plane: str) -> None:
    """The pod writes without end; it stops when all buffers on the way are full."""
    written, stuck = 0, asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers=SSE)
        await response.prepare(request)
        while not stuck.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await response.write(b"x" * 2**17)
                written += 2**17
            except TimeoutError:
                stuck.set()
        return response

    async with (
        rest_stack(respond, plane=plane) as gateway,
        gateway.client.post(CHAT, json=HELLO) as response,
    ):
        await asyncio.wait_for(stuck.wait(), 30)
        assert 0 < written < 64 * 2**20
        response.close()


@pytest.mark.plane("embedded", "Envoy has its own way, tested in test_envoy.py")
@pytest.mark.parametrize("path", [CHAT, "/v1/nothing"])
@pytest.mark.parametrize("length", [10, 2**21])
async def test_a_draining_gateway_serves_on_and_ends_connections(
    path: str, length: int, plane: str
) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response({"text": "x" * length})

    async with rest_stack(respond, plane=plane) as gateway:
        _, _, before = await post(gateway, path)
        gateway.server.begin_drain()
        _, _, after = await post(gateway, path)
    assert "connection" not in before
    assert after["connection"] == "close"


@pytest.mark.plane("embedded", "Envoy passes a pod's answers on as they are")
@pytest.mark.parametrize("status", [404, 405])
async def test_a_path_that_the_pods_server_does_not_know_is_unimplemented(
    status: int, plane: str
) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response({"detail": "Not Found"}, status=status)

    async with rest_stack(respond, plane=plane) as gateway:
        got, said, _ = await post(gateway)
    assert (got, said["error"]["code"]) == (501, "unimplemented")


async def test_a_pods_own_404_is_passed_on(plane: str) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no such adapter"}}, status=404)

    async with rest_stack(respond, plane=plane) as gateway:
        got, said, _ = await post(gateway)
    assert (got, said) == (404, {"error": {"message": "no such adapter"}})


async def test_bytes_that_are_no_http_get_a_400_and_no_line_in_the_log(
    caplog: pytest.LogCaptureFixture, plane: str
) -> None:
    async with rest_stack(echo, plane=plane) as gateway:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nbad: \x00\r\n\r\n")
        line = await reader.readline()
        writer.close()
    assert b" 400 " in line
    assert not caplog.records


async def test_a_body_that_never_comes_ends_with_the_deadline(plane: str) -> None:
    async with rest_stack(echo, timeout=0.2, plane=plane) as gateway:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert b" 504 " in head
