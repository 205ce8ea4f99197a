"""Garbage on the REST port: clean 4xx, and no other request notices."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.support.rest_stack import RestStack, rest_stack
from tests.support.soak import examples

from autoglm.validation.http_apis import INFERENCE_POSTS, MODEL, Dialect, dialect_of

CHAT = "/v1/chat/completions"
HELLO = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()
EVENTS = [b"data: %d\n\n" % i for i in range(20)]
PATHS = [api.path.replace(MODEL, "m") for api in INFERENCE_POSTS]
FUZZ = settings(
    max_examples=examples(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Pod:
    """Streams what the test put into `chunks`."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = EVENTS

    async def respond(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in self.chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        return response


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Run, RestStack, Pod]]:
    """A gateway that lives across examples, and a way to run coroutines beside it."""
    pod = Pod()
    with asyncio.Runner() as runner:
        opening = asynccontextmanager(lambda: _open(pod))()
        gateway = runner.run(opening.__aenter__())
        yield runner.run, gateway, pod
        runner.run(opening.__aexit__(None, None, None))


async def _open(pod: Pod) -> Any:
    async with rest_stack(pod.respond) as gateway:
        yield gateway


async def post(gateway: RestStack, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    async with gateway.client.post(path, data=io.BytesIO(body), headers=headers) as response:
        return response.status, await response.read()


async def beside_a_stream(gateway: RestStack, path: str, body: bytes, **headers: str) -> int:
    (status, text), neighbour = await asyncio.gather(
        post(gateway, path, body, **headers), post(gateway, CHAT, HELLO)
    )
    assert neighbour == (200, b"".join(EVENTS))
    if status != 200:
        error = json.loads(text)["error"]
        assert error if dialect_of(path) is Dialect.OIP else error["message"]
    return status


@FUZZ
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200))
def test_bytes_that_are_no_json_object_are_a_client_error(
    parts: tuple[Run, RestStack, Pod], path: str, body: bytes
) -> None:
    run, gateway, _ = parts
    # An object without known fields is a pod's to judge, on paths with fields of its own.
    assume(not is_object(body))
    assert 400 <= run(beside_a_stream(gateway, path, body)) < 500


def is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@FUZZ
@given(
    path=st.sampled_from(PATHS),
    fields=st.dictionaries(
        st.sampled_from(["messages", "prompt", "input", "n", "stop", "tools", "temperature"]), JSON
    ),
)
def test_arbitrary_json_is_served_or_a_client_error(
    parts: tuple[Run, RestStack, Pod], path: str, fields: dict[str, Any]
) -> None:
    run, gateway, _ = parts
    body = json.dumps({"model": "m"} | fields).encode()
    status = run(beside_a_stream(gateway, path, body))
    assert status == 200 or 400 <= status < 500


@FUZZ
@given(
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    name=st.sampled_from(
        [
            "content-encoding",
            "x-request-timeout-seconds",
            "inference-header-content-length",
            "accept-encoding",
            "x-request-id",
            "traceparent",
            "connection",
        ]
    ),
)
def test_arbitrary_headers_are_served_or_a_client_error(
    parts: tuple[Run, RestStack, Pod], name: str, value: str
) -> None:
    run, gateway, _ = parts
    status = run(beside_a_stream(gateway, CHAT, HELLO, **{name: value}))
    # A request with a short timeout may get a deadline error.
    assert status == 200 or 400 <= status < 500 or (status == 504 and name.endswith("seconds"))


@FUZZ
@given(text=st.binary(min_size=1, max_size=300), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_a_stream_arrives_byte_for_byte_however_it_is_cut(
    parts: tuple[Run, RestStack, Pod], text: bytes, cuts: list[int]
) -> None:
    run, gateway, pod = parts
    ends = [*sorted(cuts), len(text)]
    pod.chunks = [
        piece for start, end in zip([0, *ends], ends, strict=False) if (piece := text[start:end])
    ]
    try:
        assert run(post(gateway, CHAT, HELLO)) == (200, text)
    finally:
        pod.chunks = EVENTS
