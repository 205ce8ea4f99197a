"""What Envoy gets of a request, and what becomes of requests that it cannot serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from autoglm.gateway.endpoints.endpoint import Endpoint, EndpointView
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.gateway.envoy.exchange import Directions, End, Exchange
from autoglm.gateway.envoy.upstream import EnvoyUpstream
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, no_fallbacks
from autoglm.gateway.request.request import GatewayRequest, Response, body_of, whole
from autoglm.gateway.routing.types import Decision, DecisionTrace, Reason

HEADERS = {"x-request-id": "r1"}


class Inner:
    """The gateway's own upstream."""

    def __init__(self) -> None:
        self.requests: list[GatewayRequest] = []

    async def __call__(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> Response:
        self.requests.append(request)
        return Response(whole(b"own"))


def exchange(*names: str, wire: Any = "grpc") -> Exchange:
    return Exchange("k", wire, frozenset(names))


def openai(make: Any, base: str = "") -> EndpointView:
    endpoint = Endpoint(f"http://10.0.0.9:8000{base}", "openai", "10.0.0.9", 8000, base=base)
    return EndpointView(
        endpoint, make.view().state, make.view().live, f"http://10.0.0.9:8000{base}"
    )


async def directed(request: GatewayRequest, view: EndpointView, key: str = "") -> Directions:
    """The directions that Envoy gets; the request ends well."""
    assert isinstance(request.exchange, Exchange)
    request.exchange.end(End(200))
    reply = await EnvoyUpstream(Inner(), UpstreamKey(key))(request, view, HEADERS, 1.5)
    assert await body_of(reply) == b""
    found = await request.exchange.directions
    assert isinstance(found, Directions)
    return found


async def test_a_pod_is_named_with_what_is_left_of_the_deadline(make: Any) -> None:
    told = await directed(make.request(exchange=exchange()), make.view(3))
    assert told == Directions(
        "10.0.0.3:50051",
        {
            "x-gateway-destination-endpoint": "10.0.0.3:50051",
            "x-request-id": "r1",
            "grpc-timeout": "1500m",
            "x-envoy-upstream-rq-timeout-ms": "1600",
        },
        timeout=1.5,
    )


async def test_credentials_and_what_is_this_hops_alone_stay_here(make: Any) -> None:
    one = exchange("authorization", "x-api-key", "cookie", "x-mine", wire="http")
    request = make.request(wire="http", exchange=one, headers={"x-mine": "1"})
    told = await directed(request, openai(make))
    assert set(told.removed_headers) == {"authorization", "x-api-key", "cookie"}


async def test_headers_of_our_own_hops_are_removed_for_third_party_servers_only(make: Any) -> None:
    names = ("x-autoglm-call", "x-autoglm-peer", "x-envoy-external-address", "x-forwarded-for")
    headers = {"x-forwarded-for": "192.0.2.7"}
    request = make.request(wire="http", exchange=exchange(*names, wire="http"), headers=headers)
    removed = (await directed(request, openai(make))).removed_headers
    assert set(removed) == {"x-autoglm-peer", "x-envoy-external-address", "x-forwarded-for"}
    request = make.request(exchange=exchange(*names), headers=headers)
    assert (await directed(request, make.view())).removed_headers == ()


async def test_credentials_of_an_open_gateway_are_forwarded_to_the_server(make: Any) -> None:
    one = exchange("authorization", wire="http")
    request = make.request(wire="http", exchange=one, headers={"authorization": "Bearer theirs"})
    assert (await directed(request, openai(make))).removed_headers == ()


async def test_an_openai_server_gets_its_key(make: Any) -> None:
    told = await directed(
        make.request(wire="http", exchange=exchange(wire="http")), openai(make), key="s3"
    )
    assert told.address == "10.0.0.9:8000"
    assert told.set_headers["authorization"] == "Bearer s3"


async def test_another_gateways_envoy_gets_the_path_of_a_server_with_a_base_path(
    make: Any,
) -> None:
    one = Exchange("k", "http", is_external_proxy=True)
    request = make.request(wire="http", target="/v1/chat/completions?x=1", exchange=one)
    told = await directed(request, openai(make, "/base"))
    assert told.set_headers[":path"] == "/base/v1/chat/completions?x=1"


async def test_a_server_with_a_base_path_goes_through_the_gateway(make: Any) -> None:
    await check_goes_through(make, exchange(wire="http"), openai(make, "/base"))


@pytest.mark.parametrize("change", [{"tls": True}, {"host": "pod.example"}])
async def test_what_envoy_cannot_reach_goes_through_the_gateway(
    make: Any, change: dict[str, Any]
) -> None:
    view = make.view()
    view = replace(view, endpoint=replace(view.endpoint, **change))
    await check_goes_through(make, exchange(), view)


async def test_a_server_of_http_1_0_is_proxied_by_the_gateway(make: Any) -> None:
    view = openai(make)
    view = replace(view, state=replace(view.state, is_http10=True))
    await check_goes_through(make, exchange(wire="http"), view)


async def test_a_response_that_has_to_be_read_goes_through_the_gateway(make: Any) -> None:
    one = exchange()
    one.is_read = True
    await check_goes_through(make, one, make.view())


async def check_goes_through(make: Any, one: Exchange, view: EndpointView) -> None:
    inner = Inner()
    one.take_over(make.request(payload=b"came later"))
    reply = await EnvoyUpstream(inner)(make.request(exchange=one), view, HEADERS, 1.0)
    assert await body_of(reply) == b"own"
    assert inner.requests[0].payload == b"came later"


async def test_a_request_that_comes_back_from_a_pod_is_tried_elsewhere_by_the_gateway(
    make: Any,
) -> None:
    one, inner = exchange(), Inner()
    upstream, request = EnvoyUpstream(inner), make.request(exchange=one)
    waiting = upstream(request, make.view(1), HEADERS, 1.0)
    one.directions.add_done_callback(lambda _: one.take_over(request))
    with pytest.raises(RetryElsewhere):
        await waiting
    reply = await upstream(request, make.view(2), HEADERS, 1.0)
    assert await body_of(reply) == b"own"


async def test_another_gateways_envoy_gets_no_headers_that_it_would_not_take(make: Any) -> None:
    one = Exchange("k", "http", is_external_proxy=True)
    one.is_read = True
    told = await directed(make.request(wire="http", exchange=one), openai(make))
    assert told.set_headers == {"x-gateway-destination-endpoint": "10.0.0.9:8000", **HEADERS}
    assert (told.address, told.timeout) == ("10.0.0.9:8000", 1.5)


async def test_another_gateways_envoy_gets_fallbacks_where_it_wants_them(make: Any) -> None:
    views = [make.view(n) for n in (1, 2, 3)]
    one = Exchange("k", "grpc", is_external_proxy=True)
    trail = DecisionTrace(views, (3.0, 1.0, 2.0))
    decision = Decision(views[0], "", "LeastLoaded", Reason.CRITERION, trail)
    one.end(End(200, served="10.0.0.3:50051"))
    upstream = EnvoyUpstream(Inner(), fallbacks=1)
    request = make.request(exchange=one)
    reply = await upstream(request, views[0], HEADERS, 1.5, decision.runners_up)
    assert reply.served_by_fallback
    told = await one.directions
    assert isinstance(told, Directions)
    assert told.set_headers["x-gateway-destination-endpoint"] == "10.0.0.1:50051,10.0.0.3:50051"
