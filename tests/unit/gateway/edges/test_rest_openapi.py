"""The OpenAPI description says what the routes are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from autoglm import v1, validation
from autoglm.common.errors import InvalidRequest
from autoglm.gateway.edges import rest_local
from autoglm.gateway.edges.rest import RestEdge, RestParts
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.proxy.proxy import Proxy
from autoglm.gateway.proxy.retry_budget import RetryPolicy
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import Handler
from autoglm.gateway.routing import Router
from autoglm.validation.http_apis import Dialect, dialect_of

DOCUMENT: dict[str, Any] = json.loads(rest_local.openapi())
MODEL = v1.Model(name="m", max_model_len=2**20)


def edge() -> RestEdge:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    router = Router(metrics, Random(1), "LeastLoaded")
    proxy: Handler = Proxy(Pool(Random(1)), {}, RetryPolicy(), metrics, router, Random(1))
    parts = RestParts(
        pipeline=proxy,
        local=lambda respond: proxy,
        snapshot=Snapshot,
        ready=lambda: (True, {}),
        registry=registry,
        bounds=Bounds(1000, 1.0, 1.0),
    )
    return RestEdge(parts)


def test_the_description_names_exactly_the_routes_there_are() -> None:
    routes = {
        (route.path, method)
        for route in edge().routes.values()
        for method in route.methods
        if method != "HEAD"
    }
    described = {(p, m.upper()) for p, methods in DOCUMENT["paths"].items() for m in methods}
    assert described == routes


_ERRORS = {
    Dialect.OPENAI: "#/components/responses/Error",
    Dialect.ANTHROPIC: "#/components/responses/AnthropicError",
    Dialect.OIP: "#/components/responses/OipError",
}


def test_every_path_has_the_errors_of_its_dialect() -> None:
    for path, methods in DOCUMENT["paths"].items():
        described = {
            response["$ref"]
            for method in methods.values()
            for response in method["responses"].values()
            if "$ref" in response
        }
        assert described <= {_ERRORS[dialect_of(path.replace("{model}", "m"))]}, path


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        target = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def bounded() -> Iterator[tuple[str, float]]:
    chat = DOCUMENT["components"]["schemas"]["ChatRequest"]["properties"]
    for name, schema in chat.items():
        for bound, beyond in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1)):
            if bound in schema and name not in ("top_logprobs",):
                yield name, schema[bound] + beyond


@pytest.mark.parametrize(("name", "value"), [*bounded()])
def test_the_described_bounds_are_the_validators(name: str, value: float) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], name: value}
    with pytest.raises(InvalidRequest) as caught:
        ask = validation.of_openai("/v1/chat/completions", json.dumps(body).encode())
        validation.validate(ask, MODEL, ["m"])
    assert caught.value.field == name
