"""What the picker reads of a request."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from msgspec.structs import replace

from autoglm import v1
from autoglm.common.errors import Cancelled, InvalidRequest, RequestTooLarge
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import request
from autoglm.gateway.envoy.exchange import Directions, End, Exchange
from autoglm.gateway.request.memory_budget import Memory, MemoryReservation
from autoglm.gateway.request.principal import ANONYMOUS, Principal
from autoglm.validation import of_generate
from autoglm.validation.routing_hint import HINT_METADATA, write_hint

BOUNDS = Bounds(100, 600.0, 3600.0)
GENERATE = "/autoglm.v1.Inference/Generate"


def seen(path: str, *more: tuple[str, str], body: bool = True) -> request.Seen:
    return request.Seen("POST", path, more, body, dict(more))


async def begun(path: str, *more: tuple[str, str], body: bytes = b"") -> Any:
    async def given(hold: MemoryReservation) -> bytes:
        hold.take(len(body))
        return body

    shown = seen(path, *more)
    return request.begin(shown, Exchange("k", request.wire_of(shown)), BOUNDS, given, 100.0)


async def received(path: str, body: bytes) -> Any:
    call = await begun(path, body=body)
    return await call.receive(call, call.hold)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1500m", 1.5),
        ("2S", 2.0),
        ("1M", 60.0),
        ("99999999H", 3600.0),
        ("soon", 600.0),
        ("", 600.0),
    ],
)
async def test_a_grpc_deadline_is_the_clients_within_bounds(text: str, seconds: float) -> None:
    call = await begun(GENERATE, ("grpc-timeout", text))
    assert call.deadline == pytest.approx(100.0 + seconds)


async def test_a_grpc_call_is_as_the_grpc_edge_makes_it() -> None:
    call = await begun(
        GENERATE, ("x-request-id", "mine"), ("x-api-key", "k1"), ("x-autoglm-peer", "10.1.1.1")
    )
    assert (call.wire, call.target, call.route) == ("grpc", GENERATE, GENERATE[1:])
    assert (call.request_id, call.peer) == ("mine", "10.1.1.1")
    assert call.credentials == (("x-api-key", "k1"),)
    assert call.headers == {}


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/completions?a=1", "POST /v1/completions"),
        ("/v2/models/org/m/infer", "POST /v2/models/{model}/infer"),
        ("/v2/models/m/generate_stream", "POST /v2/models/{model}/generate_stream"),
    ],
)
async def test_an_http_route_is_one_of_few(path: str, route: str) -> None:
    call = await begun(path, ("x-mine", "1"), ("x-request-timeout-seconds", "3"))
    assert (call.route, call.target, call.deadline) == (route, path, 103.0)
    assert call.headers == {"x-mine": "1"}


@pytest.mark.parametrize("path", ["/v1/completions", GENERATE])
async def test_every_presented_credential_is_kept(path: str) -> None:
    given = (("x-api-key", "a"), ("authorization", ""), ("x-api-key", "b"))
    assert (await begun(path, *given)).credentials == given


@pytest.mark.parametrize("path", ["/v1/completions", GENERATE])
@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\nb", "\x1b[31m", "\u2028", "id\xe9"])
async def test_request_id_that_cannot_be_passed_on_is_replaced(path: str, given: str) -> None:
    made = (await begun(path, ("x-request-id", given))).request_id
    assert made != given and len(made) == 32


async def test_a_body_over_the_limit_is_refused_before_it_comes() -> None:
    call = await begun("/v1/completions", ("content-length", "101"))
    assert isinstance(call.problem, RequestTooLarge)


async def test_a_body_becomes_what_is_requested() -> None:
    message = v1.GenerateRequest(model="glm", text="Hi").SerializeToString()
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    assert (await received(GENERATE, framed)).model == "glm"
    assert (await received("/v1/completions", b'{"model":"m","prompt":"x"}')).model == "m"


async def test_envoy_keeps_the_body_and_it_counts_here() -> None:
    memory = Memory(1000)
    call = await begun("/v1/completions", body=b'{"model":"m","prompt":"x"}')
    with memory.open("") as hold:
        assert (await call.receive(call, hold)).payload == b""
        assert memory.held == 26


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0\5abc", b"\1\0\0\0\1a", b"\0\0\0\0\1\xff"])
async def test_what_is_no_message_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await received(GENERATE, body)


@pytest.mark.parametrize("path", [GENERATE, "/v1/completions"])
async def test_the_beginning_of_a_body_over_the_limit_is_too_large(path: str) -> None:
    with pytest.raises(RequestTooLarge):
        await received(path, b"\0" + (200).to_bytes(4, "big") + b"x" * 101)


def hint(model: str = "glm") -> tuple[str, str]:
    told = write_hint(of_generate(v1.GenerateRequest(model=model, text="Hi")))
    return (HINT_METADATA, base64.b64encode(told).decode().rstrip("="))


async def never(_: MemoryReservation) -> bytes:
    raise AssertionError("the body need not be seen")


async def hinted(principal: Principal, *more: tuple[str, str], body: Any = never) -> Any:
    shown = seen(GENERATE, *more)
    call = request.begin(shown, Exchange("k", "grpc"), BOUNDS, body, 0.0)
    call = replace(call, principal=principal)
    assert call.receive is not None
    return await call.receive(call, call.hold)


async def test_what_a_client_sends_of_its_request_spares_the_body() -> None:
    assert (await hinted(ANONYMOUS, hint())).model == "glm"


@pytest.mark.parametrize(
    ("principal", "told"),
    [
        (Principal("acme", "ci", models=("glm-*",)), hint("glm-5")),
        (ANONYMOUS, (HINT_METADATA, "AAAA")),
        (ANONYMOUS, (HINT_METADATA, "!")),
    ],
)
async def test_a_claim_is_not_taken_where_the_model_matters_or_it_cannot_be_read(
    principal: Principal, told: tuple[str, str]
) -> None:
    message = v1.GenerateRequest(model="really", text="Hi").SerializeToString()

    async def body(_: MemoryReservation) -> bytes:
        return b"\0" + len(message).to_bytes(4, "big") + message

    assert (await hinted(principal, told, body=body)).model == "really"


@pytest.mark.parametrize(
    ("path", "more", "is_shown"),
    [
        (GENERATE, (), True),
        (GENERATE, (hint(),), False),
        ("/autoglm.v1.Inference/Embed", (hint(),), True),
        ("/v1/completions", (hint(),), True),
    ],
)
def test_only_bodies_of_methods_with_a_hint_stay_with_envoy(
    path: str, more: tuple[tuple[str, str], ...], is_shown: bool
) -> None:
    assert request.may_have_hint(seen(path, *more)) is not is_shown


async def restricted(one: Exchange) -> Any:
    """A request by a caller that may not use all models; Envoy has its body."""
    shown = seen(GENERATE, hint("glm-5"))
    call = request.begin(shown, one, BOUNDS, None, 0.0)
    call = replace(call, principal=Principal("acme", "ci", models=("glm-*",)))
    assert call.receive is not None
    return call


async def test_a_body_that_stays_with_envoy_is_read_at_the_gateways_own_server(make: Any) -> None:
    one, memory = Exchange("k", "grpc"), Memory(1000)
    call = await restricted(one)
    taken = make.request(payload=b"12345")
    one.directions.add_done_callback(lambda _: one.take_over(taken))
    with memory.open("") as hold:
        received = await call.receive(call, hold)
        assert memory.held == 5
    assert received.info == taken.info
    assert await one.directions == Directions()


@pytest.mark.parametrize("error", [InvalidRequest("no message"), None])
async def test_a_body_that_never_reaches_the_own_server_is_an_error(error: Any) -> None:
    one = Exchange("k", "grpc")
    call = await restricted(one)
    one.end(End(200, error))
    with pytest.raises(InvalidRequest if error else Cancelled):
        await call.receive(call, call.hold)
