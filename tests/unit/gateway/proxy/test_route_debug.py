import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.responses import opened
from tests.support.snapshots import take_snapshot

from autoglm.common.errors import InvalidRequest, PermissionDenied
from autoglm.gateway.proxy.route_debug import ROUTE_HEADER, RouteDebug
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.principal import Principal, Role
from autoglm.gateway.request.request import (
    Deliver,
    GatewayRequest,
    RequestRecord,
    Response,
    body_of,
    whole,
)
from autoglm.gateway.routing import Router
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.prefix_hash import Prefix

ADMIN = Principal("t", "k", frozenset((Role.ADMIN,)))
ASK = RequestInfo(Operation.CHAT, "glm", prefix=Prefix((1, 2, 3), 9))


class Stage:
    def __init__(self, make: Any, *, is_open: bool = False) -> None:
        self.router = Router(Metrics(CollectorRegistry()), Random(0), "PrefixAffinity")
        self.snapshot = take_snapshot([make.view(n) for n in range(20)])
        self.sent: list[str] = []
        self.debug = RouteDebug(
            self.proxy, self.router, lambda: self.snapshot, is_open=is_open, clock=lambda: 0.0
        )

    async def proxy(self, request: GatewayRequest, record: RequestRecord, deliver: Deliver) -> None:
        record.decision = self.router.route(request, self.snapshot, 0.0)
        self.sent.append(record.decision.endpoint.url)
        await deliver(Response(whole(b"answer"), headers={"a": "b"}))

    async def send(self, request: GatewayRequest) -> tuple[bytes, Response]:
        handler = self.debug if request.debug else self.proxy
        async with opened(handler, request) as reply:
            return await body_of(reply), reply


async def test_response_says_how_it_was_routed_on_both_wires(make: Any) -> None:
    stage = Stage(make)
    body, reply = await stage.send(make.request(info=ASK, debug="route", principal=ADMIN))
    told = json.loads(reply.headers[ROUTE_HEADER])
    assert body == b"answer" and reply.headers["a"] == "b"
    assert told["endpoint"] == stage.sent[0] and told["policy"] == "PrefixAffinity"
    assert len(told["candidates"]) == 8 and told["candidates_left"] == 20
    assert dict(await reply.trailers()) == {ROUTE_HEADER: reply.headers[ROUTE_HEADER]}
    assert len(reply.headers[ROUTE_HEADER]) < 4096


async def test_explaining_sends_and_remembers_nothing(make: Any) -> None:
    stage = Stage(make)
    request = make.request(info=ASK, debug="explain", principal=ADMIN, wire="http")
    stage.snapshot = take_snapshot([http_view(make, n) for n in range(3)])
    told = [json.loads((await stage.send(request))[0]) for _ in range(2)]
    assert told[0] == told[1] and not stage.sent
    assert told[0]["prompt_blocks"] == 3 and len(told[0]["candidates"]) == 3
    assert len(stage.router.memory.prefixes) == 0


async def test_explanation_shows_what_is_held(make: Any) -> None:
    stage = Stage(make)
    await stage.send(make.request(info=ASK, principal=ADMIN))
    _, reply = await stage.send(make.request(info=ASK, debug="route", principal=ADMIN))
    told = json.loads(reply.headers[ROUTE_HEADER])
    best = told["candidates"][0]
    assert told["reason"] == "prefix" and best["blocks_held"] == 3
    assert best["endpoint"] == told["endpoint"] == stage.sent[0]


async def test_only_admins_may_explain_unless_it_is_open(make: Any) -> None:
    request = make.request(info=ASK, debug="route")
    with pytest.raises(PermissionDenied, match="--route-debug"):
        await Stage(make).send(request)
    assert (await Stage(make, is_open=True).send(request))[0] == b"answer"


@pytest.mark.parametrize(("wire", "debug"), [("grpc", "explain"), ("http", "everything")])
async def test_what_cannot_be_shown_is_refused(make: Any, wire: str, debug: str) -> None:
    with pytest.raises(InvalidRequest, match="x-autoglm-debug"):
        await Stage(make, is_open=True).send(make.request(info=ASK, debug=debug, wire=wire))


async def test_requests_without_a_debug_header_pass(make: Any) -> None:
    _, reply = await Stage(make).send(make.request(info=ASK))
    assert ROUTE_HEADER not in reply.headers


def http_view(make: Any, number: int) -> Any:
    return replace(make.view(number), http_base=f"http://10.0.0.{number}:8000")
