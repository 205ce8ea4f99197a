import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from autoglm import v1
from autoglm.common.admin_server import AdminServer
from autoglm.common.errors import Unauthenticated
from autoglm.gateway.edges.admin_pages import endpoints
from autoglm.gateway.endpoints.endpoint import (
    Endpoint,
    EndpointView,
    Live,
    Load,
    Phase,
    State,
)
from autoglm.testing.fake_server import FakeServer

LOAD = Load(running=2, kv_cache_usage=0.25)
VIEWS = [
    EndpointView(
        Endpoint("grpc://127.0.0.1:1", "pod", "127.0.0.1", 1),
        State(Phase.READY, why="", models=(v1.Model(name="a"), v1.Model(name="b"))),
        Live(in_flight=3, load=LOAD),
    ),
    EndpointView(
        Endpoint("grpc://127.0.0.1:2", "pod", "127.0.0.1", 2), State(why="refused"), Live()
    ),
]
# What the gateway itself shows, so that the two cannot drift apart.
ENDPOINTS = endpoints(VIEWS, now=1.0)


def admin(ready: bool, pages: Mapping[str, Any], **details: Any) -> AdminServer:
    return AdminServer(
        "127.0.0.1:0",
        lambda: (ready, {"endpoints": 2, **details}),
        registry=CollectorRegistry(),
        pages={path: partial(dict, page) for path, page in pages.items()},
    )


@pytest.fixture
def ready_admin() -> Iterator[str]:
    server = admin(True, {"/admin/endpoints": ENDPOINTS})
    yield f"127.0.0.1:{server.port}"
    server.close()


def test_one_screen_shows_all(autoglm: Any, server: FakeServer, ready_admin: str) -> None:
    result = autoglm("status", "--metrics-address", ready_admin)
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "Gateway: ready\n"
        "\n"
        "Models:\n"
        "NAME  ENGINE  CONTEXT  READY\n"
        "fake  fake    2048     1\n"
        "\n"
        "Endpoints:\n"
        "ENDPOINT            STATE       MODELS  IN FLIGHT  RUNNING  WAITING  KV CACHE  WHY\n"
        "grpc://127.0.0.1:1  ready       a,b     3          2        0        0.25      -\n"
        "grpc://127.0.0.1:2  connecting  -       0          0        0        0.00      refused\n"
    )


def test_json_has_the_same_facts(autoglm: Any, server: FakeServer, ready_admin: str) -> None:
    document = json.loads(
        autoglm("status", "--output", "json", "--metrics-address", ready_admin).out
    )
    assert document["ready"] is True
    assert document["gateway"] == {"ready": True, "endpoints": 2}
    assert document["models"][0]["name"] == "fake"
    assert document["endpoints"] == json.loads(json.dumps(ENDPOINTS["endpoints"]))


def test_an_admin_page_out_of_reach_is_no_failure(autoglm: Any, server: FakeServer) -> None:
    result = autoglm("status", "--metrics-address", "127.0.0.1:1")
    assert result.code == 0
    assert "no response from the admin port at 127.0.0.1:1" in result.out


def test_a_gateway_that_is_not_ready_exits_1(autoglm: Any, server: FakeServer) -> None:
    unready = admin(False, {})
    result = autoglm("status", "--metrics-address", f"127.0.0.1:{unready.port}")
    unready.close()
    assert result.code == 1
    assert result.out.startswith("Gateway: not ready\n")


@pytest.mark.parametrize(
    ("details", "shown"),
    [
        (
            {"reasons": ["no model has a ready replica", "m: Starting (load 3.2 GB)", "n: Failed"]},
            "Gateway: not ready: no model has a ready replica\n"
            "  m: Starting (load 3.2 GB)\n"
            "  n: Failed\n",
        ),
        ({"start": {"text": "compile"}}, "Gateway: not ready: compile\n"),
    ],
)
def test_a_gateway_that_is_not_ready_says_why(
    autoglm: Any, server: FakeServer, details: dict[str, Any], shown: str
) -> None:
    unready = admin(False, {}, **details)
    at = ("--metrics-address", f"127.0.0.1:{unready.port}")
    text, value = autoglm("status", *at), autoglm("status", *at, "--output", "json")
    unready.close()
    assert text.out.startswith(shown)
    assert json.loads(value.out)["gateway"] == {"ready": False, "endpoints": 2, **details}


def test_a_gateway_that_requires_a_key_is_ready(
    autoglm: Any, server: FakeServer, ready_admin: str
) -> None:
    server.failures = [Unauthenticated("there is no credential; send an API key")]
    result = autoglm("status", "--metrics-address", ready_admin)
    assert result.code == 0
    assert result.out.startswith("Gateway: ready\n")
    assert "Models: not shown without a credential; give it with --api-key-file" in result.out
    assert "grpc://127.0.0.1:1" in result.out
    assert "UNAUTHENTICATED: there is no credential" in result.err


def test_no_gateway_is_a_document_too(autoglm: Any) -> None:
    places = ("--address", "127.0.0.1:1", "--metrics-address", "127.0.0.1:1")
    result = autoglm("status", *places, "--output", "json")
    document = json.loads(result.out)
    assert result.code == 1
    assert document["ready"] is False and "no gateway or pod listens" in document["error"]


def test_no_gateway_exits_1_and_says_why(autoglm: Any) -> None:
    result = autoglm("status", "--address", "127.0.0.1:1", "--metrics-address", "127.0.0.1:1")
    assert result.code == 1
    assert "NO_READY_ENDPOINT" in result.err
