"""An exchange: one outcome, of the first event, and no waiter left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.responses import forward

from autoglm.common.errors import Cancelled, NoReadyEndpoint, StreamBroken
from autoglm.gateway.envoy.exchange import Directions, End, Exchange, Exchanges, TakeOver
from autoglm.gateway.request.request import RequestRecord, Response, Wire, body_of


def exchange() -> Exchange:
    return Exchange("k", "grpc")


def take_over(exchanges: Exchanges) -> TakeOver:
    async def never(*_: Any) -> None:
        raise AssertionError("it has been through the pipeline")

    return TakeOver(exchanges, never)


async def test_the_first_outcome_counts(make: Any) -> None:
    one = exchange()
    one.end(End(200))
    one.end(End(500))
    assert not one.take_over(make.request())
    assert await one.send(Directions("a:1")) == End(200)
    assert one.taken is None


async def test_a_call_is_taken_over_once(make: Any) -> None:
    one, request = exchange(), make.request()
    assert one.take_over(request) and not one.take_over(make.request(payload=b"x"))
    one.end(End(200))
    assert one.taken is request


@pytest.mark.parametrize(("wire", "is_read"), [("grpc", False), ("http", True)])
async def test_only_usage_over_http_needs_the_body(wire: Wire, is_read: bool) -> None:
    one = Exchange("k", wire)
    one.require_usage()
    assert one.is_read is is_read


async def test_tokens_of_a_response_by_envoy_are_bounded_by_its_size() -> None:
    one = exchange()
    assert one.generated(counted=0, reserved=50.0) == 0
    one.end(End(200, body_bytes=120))
    assert one.generated(counted=0, reserved=50.0) == 12
    assert one.generated(counted=0, reserved=7.0) == 7


async def test_delivery_of_a_response_by_envoy_raises_what_ended_it() -> None:
    with pytest.raises(StreamBroken):
        await exchange().deliver(Response(forward([StreamBroken("gone")])))


async def test_a_response_through_the_gateway_is_delivered_where_the_request_came_again(
    make: Any,
) -> None:
    exchanges, one = Exchanges(), exchange()
    exchanges.open(one)
    again = make.request(continues="k")
    async with asyncio.timeout(5):
        async with asyncio.TaskGroup() as group:
            response = group.create_task(_read(take_over(exchanges), again))
            assert await one.send(Directions()) is again
            await one.deliver(Response(forward([b"a", b"b"])))
    assert response.result() == b"ab"


async def test_a_client_that_leaves_ends_the_call_where_it_is_held(make: Any) -> None:
    exchanges, one = Exchanges(), exchange()
    exchanges.open(one)
    async with asyncio.timeout(5):
        response = asyncio.create_task(_read(take_over(exchanges), make.request(continues="k")))
        await one.send(Directions())
        left = asyncio.Event()
        one.on_left = left.set
        response.cancel()
        await asyncio.gather(response, return_exceptions=True)
        assert left.is_set()
        with pytest.raises(Cancelled):
            await one.deliver(Response(forward([b"a"])))


async def test_an_error_reaches_the_request_that_waits(make: Any) -> None:
    refused, taken = exchange(), exchange()
    error = NoReadyEndpoint("none")
    refused.fail(error)
    assert await refused.directions is error
    taken.directions.set_result(Directions())
    taken.take_over(make.request())
    taken.fail(error)
    with pytest.raises(NoReadyEndpoint):
        await taken.response()


async def test_a_request_that_names_no_call_under_way_passes_the_pipeline(make: Any) -> None:
    seen: list[Any] = []

    async def pipeline(request: Any, *_: Any) -> None:
        seen.append(request)

    async def deliver(_: Response) -> None: ...

    for key in ("", "made-up"):
        handler = TakeOver(Exchanges(), pipeline)
        await handler(make.request(continues=key), RequestRecord(), deliver)
    assert len(seen) == 2


async def _read(handler: TakeOver, request: Any) -> bytes:
    body = b""

    async def deliver(response: Response) -> None:
        nonlocal body
        body = await body_of(response)

    await handler(request, RequestRecord(), deliver)
    return body
