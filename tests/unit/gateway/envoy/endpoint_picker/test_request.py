"""A body that passes through the endpoint picker: whole when wanted, counted, and given back."""

from __future__ import annotations

import asyncio

import pytest

from autoglm.common.addresses import TrustedProxies
from autoglm.common.errors import QueueFull, RequestTooLarge
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import ext_proc_pb2
from autoglm.gateway.envoy.endpoint_picker.request import START_BYTES, StreamedBody, call_of
from autoglm.gateway.envoy.exchange import Exchange
from autoglm.gateway.envoy.request import Seen
from autoglm.gateway.request.memory_budget import Memory

LIMIT = 2**20


async def test_the_whole_is_there_once_its_last_piece_is() -> None:
    body, memory = StreamedBody(LIMIT, is_there=True), Memory(2**22)
    body.add(b"one ", is_last=False)
    with memory.open("") as hold:
        waiting = asyncio.create_task(body.whole(hold))
        await body.wanted
        assert memory.held == 4
        body.add(b"two", is_last=True)
        assert await waiting == b"one two"
        assert (memory.held, body.is_whole) == (7, True)


async def test_what_was_sent_back_is_not_held_any_more() -> None:
    body, memory = StreamedBody(LIMIT, is_there=True), Memory(2**22)
    body.add(b"one", is_last=True)
    with memory.open("") as hold:
        await body.whole(hold)
        assert body.take() == b"one"
        assert (memory.held, body.take()) == (0, b"")


async def test_no_body_is_whole_at_once() -> None:
    body = StreamedBody(LIMIT, is_there=False)
    with Memory(2**22).open("") as hold:
        assert await body.whole(hold) == b""


async def test_no_more_than_the_beginning_is_read_of_a_body_that_no_layer_wants() -> None:
    body = StreamedBody(LIMIT, is_there=True)
    body.add(b"x" * (START_BYTES - 1), is_last=False)
    seen = [body.is_long]
    body.add(b"x", is_last=False)
    seen.append(body.is_long)
    with Memory(2**22).open("") as hold:
        waiting = asyncio.create_task(body.whole(hold))
        await body.wanted
        seen.append(body.is_long)
        waiting.cancel()
    assert seen == [False, True, False]


async def test_a_body_over_the_limit_fails_the_waiting_request() -> None:
    body, memory = StreamedBody(100, is_there=True), Memory(2**22)
    with memory.open("") as hold:
        waiting = asyncio.create_task(body.whole(hold))
        await body.wanted
        body.add(b"x" * 200, is_last=False)
        with pytest.raises(RequestTooLarge):
            await waiting


async def test_a_body_without_room_fails_the_waiting_request() -> None:
    body, memory = StreamedBody(LIMIT, is_there=True), Memory(1000)
    body.add(b"x" * 600, is_last=True)
    with memory.open("") as hold, pytest.raises(QueueFull):
        await body.whole(hold)
    assert memory.held == 0


@pytest.mark.parametrize(
    ("forwarded", "peer"),
    [
        ("", ""),
        ("203.0.113.5", "203.0.113.5"),
        ("198.51.100.1, 203.0.113.5", "203.0.113.5"),
        ("198.51.100.1, 203.0.113.5, 10.0.0.1", "203.0.113.5"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_trusted_proxys(
    forwarded: str, peer: str
) -> None:
    bounds = Bounds(LIMIT, 600.0, 3600.0, proxies=TrustedProxies(["10.0.0.0/8"]))
    fields = (("x-forwarded-for", forwarded),)
    seen = Seen("POST", "/v1/completions", fields, False, dict(fields))
    exchange = Exchange("k", "http")
    first = ext_proc_pb2.ProcessingRequest()
    body = StreamedBody(LIMIT, is_there=False)
    assert call_of(first, seen, exchange, bounds, body, 100.0).peer == peer
