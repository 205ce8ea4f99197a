"""Envoy's configuration: who goes to the picker, who does not, and what bounds what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from autoglm.gateway.envoy.config.bootstrap import bootstrap
from autoglm.gateway.envoy.config.names import Sockets
from autoglm.gateway.request.grpc_methods import METHODS
from autoglm.gateway.settings import GatewaySettings
from autoglm.validation.http_apis import INFERENCE_POSTS

SOCKETS = Sockets(Path("/run/x"))
LISTEN: Any = {"grpc": ("127.0.0.1", 1), "http": ("::1", 2)}


def config(**settings: Any) -> dict[str, Any]:
    return bootstrap(GatewaySettings(**settings).with_memory(2**30), SOCKETS, LISTEN)


def manager(wire: str, **settings: Any) -> dict[str, Any]:
    (listener,) = (
        x for x in config(**settings)["static_resources"]["listeners"] if x["name"] == wire
    )
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def routes(wire: str, **settings: Any) -> list[dict[str, Any]]:
    (host,) = manager(wire, **settings)["route_config"]["virtual_hosts"]
    found: list[dict[str, Any]] = host["routes"]
    return found


def route_of(wire: str, path: str, **headers: str) -> dict[str, Any]:
    """The first route that takes the request, as Envoy does."""
    headers = {":method": "POST", **headers}
    return next(r for r in routes(wire) if _takes(r["match"], path, headers))


def _takes(match: dict[str, Any], path: str, headers: dict[str, str]) -> bool:
    for wanted in match.get("headers", ()):
        value = headers.get(wanted["name"])
        exact = wanted.get("string_match", {}).get("exact")
        if value is None or (exact is not None and value != exact):
            return False
    if "path" in match:
        return bool(match["path"] == path)
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    return path.startswith(match["prefix"])


def goes_to(wire: str, path: str, **headers: str) -> str:
    found = route_of(wire, path, **headers)
    asks_picker = "typed_per_filter_config" not in found
    cluster = str(found["route"]["cluster"])
    assert asks_picker == cluster.startswith("call-"), "pods are the picker's to name"
    return cluster


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.path)
def test_methods_of_one_request_go_to_pods(method: Any) -> None:
    assert goes_to("grpc", method.path) == ("own-grpc" if method.bidi else "call-grpc")


@pytest.mark.parametrize("path", [api.path for api in INFERENCE_POSTS])
def test_relayed_paths_go_to_pods(path: str) -> None:
    asked = path.replace("{model:.+}", "org/name-1.5")
    assert goes_to("http", asked) == "call-http"
    assert goes_to("http", asked, **{":method": "GET"}) == "own-http"


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ("grpc", "/autoglm.v1.Inference/ListModels"),
        ("grpc", "/grpc.health.v1.Health/Check"),
        ("grpc", "/envoy.service.ext_proc.v3.ExternalProcessor/Process"),
        ("http", "/v1/models"),
        ("http", "/v1/chat/completions/"),
        ("http", "/metrics"),
    ],
)
def test_all_else_is_served_by_the_gateway_itself(wire: str, path: str) -> None:
    assert goes_to(wire, path) == f"own-{wire}"


@pytest.mark.parametrize(
    ("wire", "header"),
    [("http", "content-encoding"), ("grpc", "grpc-encoding"), ("http", "x-autoglm-debug")],
)
def test_what_only_the_gateway_can_read_goes_there_first(wire: str, header: str) -> None:
    path = "/v1/completions" if wire == "http" else "/autoglm.v1.Inference/Chat"
    assert goes_to(wire, path, **{header: "gzip"}) == f"own-{wire}"


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_no_client_names_a_pod_or_a_call(wire: str) -> None:
    (early,) = manager(wire)["early_header_mutation_extensions"]
    mutations = early["typed_config"]["mutations"]
    assert {"remove": "x-gateway-destination-endpoint"} in mutations
    appended = {m["append"]["header"]["key"]: m["append"] for m in mutations if "append" in m}
    for name in ("x-autoglm-call", "x-autoglm-peer"):
        assert appended[name]["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"


def test_bodies_are_kept_up_to_the_limit_of_the_settings() -> None:
    found = routes("http", max_body_bytes=2**20)
    limits = {r.get("request_body_buffer_limit") for r in found if "retry_policy" in r["route"]}
    assert limits == {2**20 + 1024}


def test_silence_ends_streams_only_and_not_while_they_may_wait_for_a_place() -> None:
    settings = {"queue_timeout_seconds": 5.0, "first_token_timeout_seconds": 70.0}
    idle = {
        r["match"]["path"].rpartition("/")[2]: r["route"]["idle_timeout"]
        for r in routes("grpc", **settings)
        if "idle_timeout" in r["route"]
    }
    assert idle == {"GenerateStream": "75.000s", "ChatStream": "75.000s"}


def test_certificates_are_served_and_requested_as_the_settings_say() -> None:
    files = {"tls_cert_file": "/c/tls.crt", "tls_key_file": "/c/tls.key"}
    (chain,) = config(**files)["static_resources"]["listeners"][0]["filter_chains"]
    context = chain["transport_socket"]["typed_config"]
    (certificate,) = context["common_tls_context"]["tls_certificates"]
    assert certificate["watched_directory"] == {"path": "/c"}
    assert context["require_client_certificate"] is False
    mutual = config(**files, tls_client_ca_file="/c/ca.crt")
    (chain,) = mutual["static_resources"]["listeners"][1]["filter_chains"]
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    assert (
        "transport_socket" not in config()["static_resources"]["listeners"][0]["filter_chains"][0]
    )


def test_only_bodies_of_http_have_to_be_whole_in_time() -> None:
    timeouts = {w: manager(w, default_timeout_seconds=5.0)["request_timeout"] for w in LISTEN}
    assert timeouts == {"grpc": "0.000s", "http": "5.000s"}


def test_connection_of_many_streams_is_not_ended_for_a_client_that_reads_late() -> None:
    """Its own limit is 10,000 frames, of all streams: 40 tokens behind on 256 streams."""
    for wire in ("grpc", "http"):
        options = manager(wire)["http2_protocol_options"]
        most = GatewaySettings().max_inflight
        assert options["max_outbound_frames"] >= 40 * most
